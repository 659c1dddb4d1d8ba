#include "gateway/proxy/health_survey.h"

#include "gateway/proxy/checks.h"
#include "gateway/proxy/health.h"

#include <stdlib.h>

struct health_survey *health_survey_new(uint16_t port, size_t count, void (*done)(void *arg), void *arg)
{
    struct health_survey *survey = calloc(1, sizeof *survey);
    if (!survey || !(survey->items = calloc(count + 1, sizeof *survey->items)))
        abort();
    survey->port = port;
    survey->count = count;
    survey->done = done;
    survey->arg = arg;
    return survey;
}

static void free_if_over(struct health_survey *survey)
{
    if (!survey->is_closed || survey->answered < survey->asked)
        return;
    free(survey->items);
    free(survey);
}

void health_survey_close(struct health_survey **survey_ptr)
{
    struct health_survey *survey = *survey_ptr;
    *survey_ptr = NULL;
    if (!survey)
        return;
    survey->is_closed = true;
    free_if_over(survey);
}

void health_survey_look(struct health_survey *survey, const struct proxy *proxy)
{
    for (size_t i = 0; i < survey->count; i++) {
        struct health_survey_item *item = &survey->items[i];
        struct health_verdict verdict = health_look(proxy->health, item->serial, survey->port);
        atomic_fetch_add(&item->ejected, verdict.is_ejected ? 1 : 0);
        atomic_fetch_add(&item->failures, verdict.failures);
        atomic_fetch_add(&item->down, checks_is_down(proxy->checks, item->serial, survey->port) ? 1 : 0);
    }
}

void health_survey_answered(void *arg)
{
    struct health_survey *survey = arg;
    survey->answered++;
    if (survey->answered == survey->asked && !survey->is_closed)
        survey->done(survey->arg);
    else
        free_if_over(survey);
}
