/*
 * access_text: writes the parts of a log line into a bounded buffer: escaped strings, numbers, addresses, times.
 *
 * Private to access_log and error_page. No allocation, no printf. What does not fit is cut, between characters.
 */
#ifndef GATEWAY_PROXY_ACCESS_TEXT_H
#define GATEWAY_PROXY_ACCESS_TEXT_H

#include "gateway/base/ip.h"
#include "gateway/base/slice.h"

struct access_text {
    char *next;
    char *end;
};

/*
 * JSON: the inside of a JSON string (RFC 8259 section 7): what is not valid UTF-8 becomes \ufffd; control characters,
 * and those that break or reorder lines on a screen, become \uXXXX.
 * PLAIN: printable ASCII, the rest as \xXX, like Apache's logs.
 */
enum access_escape { ACCESS_ESCAPE_JSON, ACCESS_ESCAPE_PLAIN };

/* Of one second; formatted when the second changes. */
struct access_time {
    uint64_t second;  /* UINT64_MAX: none yet */
    char rfc3339[19]; /* "2026-01-31T23:59:59" */
    char clf[26];     /* "31/Jan/2026:23:59:59 +0000" */
};

static inline size_t access_text_room(const struct access_text *text)
{
    return (size_t)(text->end - text->next);
}

/* As it is. */
void access_text_put(struct access_text *text, const char *bytes, size_t len);
/* At most `max` bytes after escaping. */
void access_text_put_escaped(struct access_text *text, struct slice s, size_t max, enum access_escape escape);
void access_text_put_u64(struct access_text *text, uint64_t value);
/* Milliseconds with three decimals. */
void access_text_put_ms(struct access_text *text, uint64_t us);
/* 16 hex digits. */
void access_text_put_hex64(struct access_text *text, uint64_t value);
void access_text_put_ip(struct access_text *text, const struct ip_addr *addr);
/* "1.2.3.4:443", "[::1]:443" */
void access_text_put_ip_port(struct access_text *text, const struct ip_addr *addr, uint16_t port);
/* RFC 3339, UTC, with milliseconds. */
void access_text_put_time(struct access_text *text, struct access_time *cache, uint64_t wall_us);
/* The common log format's time, without brackets. */
void access_text_put_clf_time(struct access_text *text, struct access_time *cache, uint64_t wall_us);

#endif
