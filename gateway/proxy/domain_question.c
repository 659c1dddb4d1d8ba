#include "gateway/proxy/domain_question.h"

#include <stdlib.h>

struct domain_question *domain_question_new(struct slice name, void (*answered)(void *arg), void *arg)
{
    struct domain_question *question = calloc(1, sizeof *question + name.len + 1);
    if (!question)
        abort();
    question->answered = answered;
    question->arg = arg;
    question->len = name.len;
    memcpy(question->name, name.ptr, name.len);
    return question;
}

void domain_question_close(struct domain_question **question_ptr)
{
    struct domain_question *question = *question_ptr;
    *question_ptr = NULL;
    if (question && question->is_away)
        question->is_closed = true;
    else
        free(question);
}

void domain_question_look(struct domain_question *question, struct domains *domains)
{
    question->said = DOMAIN_SAID_OFF;
    if (!domains_is_on(domains))
        return;
    switch (domains_peek(domains, slice_make(question->name, question->len), &question->target)) {
    case DOMAINS_KNOWN:
        question->said = DOMAIN_SAID_TARGET;
        break;
    case DOMAINS_UNKNOWN:
        question->said = DOMAIN_SAID_NOTHING;
        break;
    case DOMAINS_PENDING:
        question->said = DOMAIN_SAID_PENDING;
        break;
    }
}

void domain_question_answered(void *arg)
{
    struct domain_question *question = arg;
    question->is_away = false;
    if (question->is_closed)
        free(question);
    else
        question->answered(question->arg);
}
