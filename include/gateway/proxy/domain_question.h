/*
 * domain_question: asks a worker what the DNS says about a custom name, as its clients' connections would. Nobody waits
 * on the worker: while the answer is PENDING, it is asked again. Made and read on the control thread; the question
 * travels by loop_post.
 */
#ifndef GATEWAY_PROXY_DOMAIN_QUESTION_H
#define GATEWAY_PROXY_DOMAIN_QUESTION_H

#include "gateway/proxy/domains.h"

enum domain_said {
    DOMAIN_SAID_OFF,     /* the DNS is not asked */
    DOMAIN_SAID_PENDING, /* it has not answered yet */
    DOMAIN_SAID_NOTHING,
    DOMAIN_SAID_TARGET,
};

struct domain_question {
    enum domain_said said; /* not while it is away */
    struct txt_target target;
    bool is_away;   /* with a worker */
    bool is_closed; /* its owner has left */
    void (*answered)(void *arg);
    void *arg;
    size_t len;
    char name[]; /* lower case, no final dot */
};

/* answered(arg) is called on the control thread each time it comes back, unless it was closed. */
struct domain_question *domain_question_new(struct slice name, void (*answered)(void *arg), void *arg);
/* Its owner's last word. Accepts NULL. */
void domain_question_close(struct domain_question **question);

/* On a worker; domains may be NULL. */
void domain_question_look(struct domain_question *question, struct domains *domains);
/* On the control thread, when it comes back; takes the question as void * for loop_post. */
void domain_question_answered(void *question);

#endif
