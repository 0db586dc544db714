/* conversation: what a caller gives, with the model's own messages in front, as text and as ids
 * that fit the context; soft tokens of pictures and sounds among them.
 *
 * Knows nothing of what a session holds. Flow: engine.c before, token/chat.c below, generate.c
 * after. */
#include "model/conversation.h"

#include <string.h>

static bool is_system(const json *message) {
    const json *role = json_get(message, "role");
    return json_is_string(role, "system") || json_is_string(role, "developer");
}

static bool parse_array(arena *a, const char *text, const char *what, json **out,
                        carat_error *err) {
    if (!json_parse(a, text, strlen(text), what, out, err)) return false;
    if ((*out)->kind == JSON_ARRAY) return true;
    return fail(err, CARAT_E_ARGUMENT, "%s: not a JSON array", what);
}

static json string_of(const char *s) {
    return (json){.kind = JSON_STRING, .text = s, .len = strlen(s)};
}

/* {"role":"system","content":text} */
static bool system_message(arena *a, const char *text, json *out) {
    json *keys = arena_alloc(a, 2, sizeof *keys), *items = arena_alloc(a, 2, sizeof *items);
    if (!keys || !items) return false;
    keys[0] = string_of("role"), items[0] = string_of("system");
    keys[1] = string_of("content"), items[1] = string_of(text);
    *out = (json){.kind = JSON_OBJECT, .n = 2, .items = items, .keys = keys};
    return true;
}

/* The system message (the user's own, else the engine's), the engine's messages, the user's. */
static bool put_in_front(const carat_engine *eng, arena *a, json *user, carat_error *err) {
    size_t n_own = eng->messages ? eng->messages->n : 0, n = 0;
    bool user_system = user->n && is_system(&user->items[0]);
    json *all = arena_alloc(a, user->n + n_own + 1, sizeof *all);
    if (!all) return fail_memory(err, user->n * sizeof *all, "the conversation");
    if (user_system) {
        all[n++] = user->items[0];
    } else if (eng->system && !(n_own && is_system(&eng->messages->items[0]))) {
        if (!system_message(a, eng->system, &all[n++]))
            return fail_memory(err, 0, "the system prompt");
    }
    for (size_t i = 0; i < n_own; i++)
        if (!user_system || !is_system(&eng->messages->items[i]))
            all[n++] = eng->messages->items[i];
    for (size_t i = user_system; i < user->n; i++) all[n++] = user->items[i];
    user->items = all;
    user->n = n;
    return true;
}

static bool parse(const carat_engine *eng, arena *a, const carat_chat_desc *desc, json **messages,
                  json **tools, carat_error *err) {
    *tools = NULL;
    if (!desc || !desc->messages) return fail(err, CARAT_E_ARGUMENT, "messages: none are given");
    return parse_array(a, desc->messages, "messages", messages, err) &&
           (!desc->tools || parse_array(a, desc->tools, "tools", tools, err)) &&
           put_in_front(eng, a, *messages, err);
}

static bool render(const carat_engine *eng, const carat_chat_desc *desc, const json *messages,
                   const media_plan *plan, prompt *out, carat_error *err) {
    chat_options options = {.thinking = desc->thinking,
                            .large = eng->large,
                            .add_generation_prompt = true,
                            .repair = true,
                            .videos = plan->videos,
                            .n_video = plan->n_video};
    prompt_free(out);
    return chat_render(messages, out->tools, &options, &out->text, err);
}

bool prompt_render(const carat_engine *eng, arena *a, const carat_chat_desc *desc, prompt *out,
                   carat_error *err) {
    json *messages = NULL, *tools = NULL;
    media_plan plan = {0};
    *out = (prompt){0};
    if (!parse(eng, a, desc, &messages, &tools, err)) return false;
    if (desc->n_media && !media_plan_create(a, eng, desc, messages, &plan, err)) return false;
    out->tools = tools;
    return render(eng, desc, messages, &plan, out, err);
}

uint32_t prompt_reserve(uint32_t n_ctx, uint32_t max_tokens) {
    uint32_t n = max_tokens ? min_u32(max_tokens, n_ctx / 4) : min_u32(256, n_ctx / 8);
    return max_u32(n, 1);
}

/* Drops the oldest turn: a user's message and all up to the next one. Never a system message at
 * the start, nor the last message. Returns how many messages went. */
static uint32_t drop_turn(json *messages) {
    size_t from = messages->n && is_system(&messages->items[0]), to = from + 1;
    while (to < messages->n && !json_is_string(json_get(&messages->items[to], "role"), "user"))
        to++;
    if (to >= messages->n) return 0;
    memmove(&messages->items[from], &messages->items[to],
            (messages->n - to) * sizeof *messages->items);
    messages->n -= to - from;
    return (uint32_t)(to - from);
}

/* Does the work for what is in the prompt. */
static bool prepare(arena *a, const media_plan *plan, prompt *out, carat_error *err) {
    out->n_medium = plan->n_place;
    for (uint32_t i = 0; i < plan->n_place; i++) {
        const uint32_t clip = plan->places[i].clip;
        out->n_cut += clip == 1;
        out->n_piece += clip == 1 ? 2 : clip > 1;
    }
    return media_prepare(a, plan, &out->ids, &out->media, err);
}

bool prompt_build(const carat_engine *eng, arena *a, const carat_chat_desc *desc, uint32_t n_ctx,
                  prompt *out, carat_error *err) {
    json *messages = NULL, *tools = NULL;
    media_plan plan;
    *out = (prompt){0};
    if (!parse(eng, a, desc, &messages, &tools, err) ||
        !media_plan_create(a, eng, desc, messages, &plan, err))
        return false;
    out->tools = tools;
    uint32_t reserve = prompt_reserve(n_ctx, desc->max_tokens);
    for (;;) {
        if (!render(eng, desc, messages, &plan, out, err)) return false;
        chat_encode(eng->model->tokenizer, &out->text, &out->ids);
        if (!media_expand(&plan, &out->text, &out->ids, err)) return false;
        if (out->ids.failed) return fail_memory(err, out->text.text.len, "the prompt's tokens");
        if (out->ids.len + reserve <= n_ctx) return prepare(a, &plan, out, err);
        uint32_t n = desc->keep_oldest_out ? drop_turn(messages) : 0;
        if (n == 0) break;
        out->n_dropped += n;
    }
    return fail(err, CARAT_E_CONTEXT,
                "the conversation has %zu tokens and the context holds %u (%u of them for the "
                "answer)%s",
                out->ids.len, n_ctx, reserve,
                out->n_dropped ? ", even without its oldest turns"
                               : ": give it more context, or let the oldest turns be dropped");
}

void prompt_free(prompt *p) {
    chat_prompt_free(&p->text);
    ids_free(&p->ids);
    p->text = (chat_prompt){0};
    p->ids = (id_list){0};
}

char *carat_render(const carat_engine *eng, const carat_chat_desc *desc, carat_error *err) {
    arena *a = arena_create(err);
    if (!a) return NULL;
    prompt p = {0};
    char *text = NULL;
    if (prompt_render(eng, a, desc, &p, err)) {
        text = buf_take(&p.text.text);
        if (!text) fail_memory(err, 0, "the prompt");
    }
    prompt_free(&p);
    arena_free(a);
    return text;
}

/* The prompt's ids, whatever the context holds. */
static bool prompt_ids(const carat_engine *eng, arena *a, const carat_chat_desc *desc, prompt *out,
                       carat_error *err) {
    json *messages = NULL, *tools = NULL;
    media_plan plan;
    if (!parse(eng, a, desc, &messages, &tools, err) ||
        !media_plan_create(a, eng, desc, messages, &plan, err))
        return false;
    out->tools = tools;
    if (!render(eng, desc, messages, &plan, out, err)) return false;
    chat_encode(eng->model->tokenizer, &out->text, &out->ids);
    return media_expand(&plan, &out->text, &out->ids, err) &&
           (!out->ids.failed || fail_memory(err, out->text.text.len, "the prompt's tokens"));
}

int64_t carat_count(const carat_engine *eng, const carat_chat_desc *desc, carat_error *err) {
    arena *a = arena_create(err);
    if (!a) return -1;
    prompt p = {0};
    const int64_t n = prompt_ids(eng, a, desc, &p, err) ? (int64_t)p.ids.len : -1;
    prompt_free(&p);
    arena_free(a);
    return n;
}
