/*
 * ctl_screen: the whole terminal for a program that redraws it: alternate screen, no cursor, keys without echo. Plain
 * ANSI sequences, which every terminal of today knows.
 *
 * The terminal is given back as it was on every way out: ctl_screen_close, a signal that ends the program, Ctrl-Z (and
 * taken again after fg). Signals come as events, never in the middle of something.
 */
#ifndef GATEWAY_CTL_CTL_SCREEN_H
#define GATEWAY_CTL_CTL_SCREEN_H

#include <stddef.h>
#include <stdio.h>

struct ctl_screen;

enum ctl_screen_event { CTL_SCREEN_NOTHING, CTL_SCREEN_KEY, CTL_SCREEN_RESIZED, CTL_SCREEN_ENDED };

/* Takes the terminal of standard input and output; NULL if that is none, errno says why. One at a time. */
struct ctl_screen *ctl_screen_open(void);
/* Gives it back. After a signal that asked for the end it ends the program by that signal. Accepts NULL. */
void ctl_screen_close(struct ctl_screen **screen);

/* What happened; does not wait. ENDED: close it and end. */
enum ctl_screen_event ctl_screen_event(struct ctl_screen *screen, char *ret_key);
/* To be polled for reading; two descriptors. */
const int *ctl_screen_fds(const struct ctl_screen *screen);
enum { CTL_SCREEN_FDS = 2 };
/* Waits until something happens, at most so long. */
void ctl_screen_wait(struct ctl_screen *screen, int timeout_ms);

/* What is written between these two is the new content; lines and rows that are too many are cut. */
FILE *ctl_screen_begin(struct ctl_screen *screen, size_t *ret_columns, size_t *ret_lines);
void ctl_screen_end(struct ctl_screen *screen);

#endif
