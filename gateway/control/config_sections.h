/*
 * config_sections: readers for the sections of the configuration file. Private to config.
 *
 * Each reads the value that the reader is at into the reader's config or its settings.
 */
#ifndef GATEWAY_CONTROL_CONFIG_SECTIONS_H
#define GATEWAY_CONTROL_CONFIG_SECTIONS_H

#include "config_reader.h"

#define CONFIG_COUNT(array) (sizeof(array) / sizeof *(array))

bool config_sections_limits(struct config_reader *reader, const struct config_key *key, void *target);
bool config_sections_timeouts(struct config_reader *reader, const struct config_key *key, void *target);
bool config_sections_upstream(struct config_reader *reader, const struct config_key *key, void *target);
bool config_sections_trusted_proxies(struct config_reader *reader, const struct config_key *key, void *target);
bool config_sections_dns(struct config_reader *reader, const struct config_key *key, void *target);
bool config_sections_base_domains(struct config_reader *reader, const struct config_key *key, void *target);

/* In config_etcd.c: into a struct config_etcd. */
bool config_etcd_read(struct config_reader *reader, const struct config_key *key, void *target);

/* In config_sync.c: into a struct config. */
bool config_sync_read(struct config_reader *reader, const struct config_key *key, void *target);

/* In config_listeners.c. */
bool config_listeners_data(struct config_reader *reader, const struct config_key *key, void *target);
bool config_listeners_control(struct config_reader *reader, const struct config_key *key, void *target);
/* What lists checked alone don't show: data and control on one address. */
bool config_listeners_check(struct config_reader *reader);

#endif
