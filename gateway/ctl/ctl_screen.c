#include "ctl_screen.h"

#include "ctl.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

enum { DEFAULT_LINES = 24 };

#define ENTER "\033[?1049h\033[?25l"
#define LEAVE "\033[?25h\033[?1049l"

struct ctl_screen {
    struct termios before;
    sigset_t mask_before;
    int fds[CTL_SCREEN_FDS]; /* keys, signals */
    int ended_by;            /* a signal; 0: none */
    size_t lines;
    size_t columns;
    FILE *frame;
    char *text;
    size_t text_len;
};

/* ---- taking and giving back ---- */

static void write_all(const char *text, size_t len)
{
    while (len > 0) {
        ssize_t written = write(STDOUT_FILENO, text, len);
        if (written < 0 && errno != EINTR)
            return;
        text += written > 0 ? written : 0;
        len -= written > 0 ? (size_t)written : 0;
    }
}

static bool take_terminal(struct ctl_screen *screen)
{
    struct termios raw = screen->before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) != 0)
        return false;
    write_all(ENTER, strlen(ENTER));
    return true;
}

static void give_terminal(const struct ctl_screen *screen)
{
    write_all(LEAVE, strlen(LEAVE));
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &screen->before);
}

struct ctl_screen *ctl_screen_open(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};
    struct ctl_screen *screen = calloc(1, sizeof *screen);
    sigset_t set;
    if (!screen)
        abort();
    fflush(stdout);
    if (tcgetattr(STDIN_FILENO, &screen->before) != 0) {
        free(screen);
        return NULL;
    }
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaddset(&set, signals[i]);
    sigprocmask(SIG_BLOCK, &set, &screen->mask_before);
    screen->fds[0] = STDIN_FILENO;
    screen->fds[1] = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (screen->fds[1] < 0 || !take_terminal(screen))
        ctl_screen_close(&screen);
    return screen;
}

void ctl_screen_close(struct ctl_screen **screen_ptr)
{
    struct ctl_screen *screen = *screen_ptr;
    *screen_ptr = NULL;
    if (!screen)
        return;
    int error = errno, ended_by = screen->ended_by;
    give_terminal(screen);
    if (screen->fds[1] >= 0)
        close(screen->fds[1]);
    sigprocmask(SIG_SETMASK, &screen->mask_before, NULL);
    free(screen);
    if (ended_by != 0) {
        signal(ended_by, SIG_DFL);
        raise(ended_by);
    }
    errno = error;
}

/* ---- events ---- */

/* Ctrl-Z: the shell gets its terminal; after fg it is taken again. */
static void stop(const struct ctl_screen *screen)
{
    give_terminal(screen);
    raise(SIGSTOP);
    (void)take_terminal((struct ctl_screen *)(uintptr_t)screen);
}

static enum ctl_screen_event take_signal(struct ctl_screen *screen, unsigned number)
{
    if (number == SIGTSTP)
        stop(screen);
    if (number == SIGTSTP || number == SIGWINCH)
        return CTL_SCREEN_RESIZED;
    screen->ended_by = (int)number;
    return CTL_SCREEN_ENDED;
}

enum ctl_screen_event ctl_screen_event(struct ctl_screen *screen, char *ret_key)
{
    struct signalfd_siginfo info;
    struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};
    if (read(screen->fds[1], &info, sizeof info) == (ssize_t)sizeof info)
        return take_signal(screen, info.ssi_signo);
    if (poll(&keys, 1, 0) <= 0)
        return CTL_SCREEN_NOTHING;
    ssize_t got = read(STDIN_FILENO, ret_key, 1);
    if (got == 1)
        return CTL_SCREEN_KEY;
    return got == 0 || errno == EIO ? CTL_SCREEN_ENDED : CTL_SCREEN_NOTHING; /* the terminal is gone */
}

const int *ctl_screen_fds(const struct ctl_screen *screen)
{
    return screen->fds;
}

void ctl_screen_wait(struct ctl_screen *screen, int timeout_ms)
{
    struct pollfd fds[] = {{.fd = screen->fds[0], .events = POLLIN}, {.fd = screen->fds[1], .events = POLLIN}};
    poll(fds, CTL_SCREEN_FDS, timeout_ms);
}

/* ---- drawing ---- */

FILE *ctl_screen_begin(struct ctl_screen *screen, size_t *ret_columns, size_t *ret_lines)
{
    struct winsize size;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0;
    screen->lines = known ? size.ws_row : DEFAULT_LINES;
    screen->columns = ctl_terminal_columns(stdout);
    screen->frame = open_memstream(&screen->text, &screen->text_len);
    if (!screen->frame)
        abort();
    *ret_columns = screen->columns;
    *ret_lines = screen->lines;
    return screen->frame;
}

/* Each line is cut and the rest of its row cleared; then what is below. */
static void put_lines(const struct ctl_screen *screen, FILE *out)
{
    const char *line = screen->text;
    for (size_t i = 0; i < screen->lines && *line; i++) {
        size_t len = strcspn(line, "\n");
        char *copy = strndup(line, len);
        if (!copy)
            abort();
        fputs(i > 0 ? "\n" : "", out);
        ctl_put_text(out, copy, screen->columns);
        fputs("\033[K", out);
        free(copy);
        line += len + (line[len] == '\n');
    }
}

void ctl_screen_end(struct ctl_screen *screen)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out || fclose(screen->frame) != 0)
        abort();
    fputs("\033[H", out);
    put_lines(screen, out);
    fputs("\033[J", out);
    if (fclose(out) != 0)
        abort();
    write_all(text, len);
    free(text);
    free(screen->text);
}
