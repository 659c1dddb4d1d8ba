/*
 * txt_record: what the DNS says about a custom domain: TXT records of the form <app or instance id>:<port>.
 *
 * Pure: a whole DNS message in, a name of an app and a port out. Whatever a hostile zone sends, it can only ever name
 * an id and a port, never an address.
 */
#ifndef GATEWAY_WIRE_TXT_RECORD_H
#define GATEWAY_WIRE_TXT_RECORD_H

#include "gateway/base/slice.h"
#include "gateway/http/hostname.h"

enum { TXT_RECORD_MAX = 255 }; /* bytes of one record, its strings joined */

struct txt_target {
    char id[HOSTNAME_MAX_LABEL + 1]; /* lower case, NUL-terminated */
    uint16_t port;
};

/* One record: optional blanks, id (any letter case), ":", port 1 to 65535 without a leading zero, optional blanks. */
bool txt_record_parse(struct slice text, struct txt_target *ret_target);

enum txt_result {
    TXT_FOUND,
    TXT_NONE,      /* no record of the form; others (SPF, site verifications) do not matter */
    TXT_AMBIGUOUS, /* several records that say different things */
    TXT_MALFORMED, /* no well-formed answer (RFC 1035 section 4) */
};

/*
 * The answer to a TXT question. ret_target is filled for TXT_FOUND, ret_ttl (seconds, the least of the answer's TXT and
 * CNAME records, RFC 2181 section 8) for all but TXT_MALFORMED; 0 if there was none.
 */
enum txt_result txt_answer_parse(const uint8_t *message, size_t len, struct txt_target *ret_target, uint32_t *ret_ttl);

#endif
