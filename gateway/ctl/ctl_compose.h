/* What the files of `gatewayctl compose` share: one run of it. */
#ifndef GATEWAY_CTL_CTL_COMPOSE_H
#define GATEWAY_CTL_CTL_COMPOSE_H

#include "ctl.h"

#include "gateway/ctl/compose.h"

struct ctl_project {
    const struct ctl_options *options;
    struct compose_env *env; /* the variables of the files */
    struct compose *compose;
    char *app_id;
    const char *address; /* of the options, as the gateway writes it; NULL: not given */
    char address_text[IP_TEXT_MAX];
    bool checked;     /* against the addresses of the instances */
    json_t *stored;   /* what the gateway has; NULL: nothing */
    json_t *replaced; /* of the app that --replace names; NULL: not given, or gone already */
    json_t *planned;
    json_t *changes;
    json_t *domains; /* base domains, for the URLs */
};

/* The app's document; NULL with CTL_OK if there is none. */
enum ctl_exit ctl_compose_fetch(const struct ctl_options *options, const char *id, json_t **ret_app);
/* The member of a document; 0 for NULL. */
long long ctl_compose_revision(const json_t *app);
/*
 * Makes the gateway's state what is planned. *ret_again is set, and nothing said or done, when somebody else has
 * changed an app since it was read.
 */
enum ctl_exit ctl_compose_apply(struct ctl_project *project, json_t **ret_app, bool *ret_again);

#endif
