/*
 * text: what others wrote, on a terminal: made safe, measured, and cut to fit.
 *
 * Pure. Letters of the locale (setlocale is the caller's) stay; control characters, characters without a width of their
 * own (also those that change the direction of writing) and bytes that are no text are shown as \x1b or \u202e. So
 * nothing that a client sent can move the cursor, colour the screen or reorder a line.
 */
#ifndef GATEWAY_CTL_TEXT_H
#define GATEWAY_CTL_TEXT_H

#include "gateway/base/slice.h"

#include <stdio.h>

/* How many columns the text takes. */
size_t text_columns(struct slice text);

/* Writes the text; if it takes more than `max` columns, as much as fits and an ellipsis. Returns the columns written.
 */
size_t text_put(FILE *out, struct slice text, size_t max);

/*
 * Makes the columns narrower until their sum is at most `total`: the widest first, none below `least`. Widths that are
 * smaller stay. The result may still be too wide.
 */
void text_fit(size_t *widths, size_t count, size_t total, size_t least);

#endif
