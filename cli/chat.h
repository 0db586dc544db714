/* chat: what the conversation on the terminal holds, shared by chat.c (the loop and the answers)
 * and commands.c (what begins with a slash). */
#ifndef CARAT_CHAT_H
#define CARAT_CHAT_H

#include "cli.h"

typedef struct chat {
    runtime runtime;
    settings *settings;
    conversation talk;
    attachments waiting; /* for the next message */
    buf tools;           /* JSON array; empty: none */
    buf schema;          /* that answers have to follow; empty: none */
    carat_stats last;    /* of the last answer; n_prompt 0: there was none */
    arena *memory;
    line_reader *lines;
    bool quit;
} chat;

/* Answers the conversation as it stands, and goes on while the model calls tools. */
void chat_answer(chat *c);
/* How many messages remain when the last user message and what came after it go; all of them:
 * there is none. */
size_t chat_before_last_user(const chat *c);

/* ---- commands.c ---- */

/* Runs a line that begins with a slash. */
void chat_command(chat *c, const char *line);

#endif
