/* app_order: the writer's published apps in the order of their ids, for paging; 8 to 12 bytes an app. Private. */
#ifndef GATEWAY_ROUTE_APP_ORDER_H
#define GATEWAY_ROUTE_APP_ORDER_H

#include "gateway/route/route_record.h"

struct order_page;

struct app_order { /* zeroed: empty */
    struct order_page **pages;
    size_t page_count;
    size_t page_capacity;
};

void app_order_insert(struct app_order *order, struct route_app *app);
void app_order_replace(struct app_order *order, const struct route_app *before, struct route_app *after);
void app_order_remove(struct app_order *order, const struct route_app *app);

/* At most `limit` apps after `after` (exclusive; empty: from the start); returns how many. `each` changes nothing. */
typedef void (*app_order_each_cb)(void *arg, const struct route_app *app);
size_t app_order_each(const struct app_order *order, struct slice after, size_t limit, app_order_each_cb each,
                      void *arg);

/* Frees the records too. */
void app_order_free(struct app_order *order);

#endif
