/* main: finds the command and hands over. Owns the list of commands, `carat help` and the exit
 * codes; what a command does is in the file of its name.
 *
 * Flow: first. options.c and the commands come after. */
#include "cli.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

static const command *const commands[] = {
    &command_run,     &command_chat,  &command_tokenize, &command_eval,
    &command_inspect, &command_list,  &command_bench,    &command_serve,
    &command_train,   &command_merge, &command_adapter,
};

static const command *find_command(const char *name) {
    for (size_t i = 0; i < COUNT(commands); i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    return NULL;
}

static void help(void) {
    puts("carat: Gemma 4 on your own GPU, from one GGUF file\n\n"
         "usage: carat COMMAND [OPTION...] [ARGUMENT...]\n\n"
         "commands");
    for (size_t i = 0; i < COUNT(commands); i++)
        printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
    puts("  help       this text, or that of a command\n\n"
         "MODEL is a .gguf file, a name in Ollama's store (gemma4:e2b), or nano: the small model\n"
         "that comes with carat.\n\n"
         "examples\n"
         "  carat run nano \"What is 23 + 45?\"\n"
         "  carat chat gemma4:e2b\n"
         "  carat help run\n\n"
         "exit codes\n"
         "  0 done   1 something failed   2 wrong usage   130 interrupted by Ctrl-C");
}

static int unknown_command(const char *name) {
    const char *names[COUNT(commands) + 1];
    for (size_t i = 0; i < COUNT(commands); i++) names[i] = commands[i]->name;
    names[COUNT(commands)] = "help";
    const char *meant = suggest(name, names, COUNT(names));
    if (meant) return usage_error("no command '%s'; did you mean '%s'?", name, meant);
    return usage_error("no command '%s'; `carat help` lists them", name);
}

static int help_for(const char *name) {
    const command *cmd = find_command(name);
    if (!cmd) return unknown_command(name);
    options_help(cmd);
    return EXIT_OK;
}

static int run_command(const command *cmd, int argc, const char **argv) {
    settings s = {0};
    size_t n_args = 0;
    if (!options_read(cmd, argc, argv, &s, &n_args)) return EXIT_USAGE;
    if (s.help) {
        options_help(cmd);
        return EXIT_OK;
    }
    if (n_args < cmd->min_args)
        return usage_error("%s: too few arguments; it wants %s", cmd->name, cmd->usage);
    if (n_args > cmd->max_args)
        return usage_error("%s: what is '%s' for? `carat help %s` shows the usage", cmd->name,
                           argv[cmd->max_args], cmd->name);
    return cmd->run(&s, argv, n_args);
}

/* Characters are UTF-8; numbers keep their dot. */
static void use_utf8(void) {
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX < 4) setlocale(LC_CTYPE, "C.UTF-8");
}

int main(int argc, char **argv) {
    use_utf8();
    if (argc < 2) {
        help();
        return flush_stdout(EXIT_USAGE);
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        puts("carat " CARAT_VERSION);
        return flush_stdout(EXIT_OK);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        if (argc > 2) return flush_stdout(help_for(argv[2]));
        help();
        return flush_stdout(EXIT_OK);
    }
    if (name[0] == '-')
        return usage_error("no option '%s'; `carat help` shows what there is", name);
    const command *cmd = find_command(name);
    if (!cmd) return unknown_command(name);
    return flush_stdout(run_command(cmd, argc - 2, (const char **)(argv + 2)));
}
