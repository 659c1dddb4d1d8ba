/*
 * Pages of pointers, all in the order of the ids. A page is split in halves when it is full, or left full when the new
 * one comes after all others, as at boot; neighbours that are nearly empty are joined.
 */
#include "app_order.h"

#include "route_alloc.h"

#include <assert.h>

enum { PAGE_APPS = 511, JOINED_APPS = PAGE_APPS / 2, FIRST_PAGES = 8 };

struct order_page {
    size_t count;
    struct route_app *apps[PAGE_APPS];
};

/* The order of strcmp, for a key that may hold any bytes. */
static int compare(const struct route_app *app, struct slice id)
{
    size_t len = strnlen(app->id, id.len + 1);
    size_t common = len < id.len ? len : id.len;
    int order = common > 0 ? memcmp(app->id, id.ptr, common) : 0;
    if (order != 0)
        return order;
    return len == id.len ? 0 : (len < id.len ? -1 : 1);
}

/* The page where the id is, or belongs: the last one that begins at or before it. */
static size_t find_page(const struct app_order *order, struct slice id)
{
    size_t low = 0;
    size_t high = order->page_count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (compare(order->pages[middle]->apps[0], id) <= 0)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* How many of the page come before the id. */
static size_t find_place(const struct order_page *page, struct slice id)
{
    size_t low = 0;
    size_t high = page->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare(page->apps[middle], id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct order_page *insert_page(struct app_order *order, size_t index)
{
    if (order->page_count == order->page_capacity) {
        order->page_capacity = order->page_capacity > 0 ? order->page_capacity * 2 : FIRST_PAGES;
        order->pages = reallocarray(order->pages, order->page_capacity, sizeof(struct order_page *));
        if (!order->pages)
            abort();
    }
    memmove(&order->pages[index + 1], &order->pages[index], (order->page_count - index) * sizeof(struct order_page *));
    order->page_count++;
    return order->pages[index] = route_alloc(1, sizeof(struct order_page));
}

static void remove_page(struct app_order *order, size_t index)
{
    free(order->pages[index]);
    order->page_count--;
    memmove(&order->pages[index], &order->pages[index + 1], (order->page_count - index) * sizeof(struct order_page *));
}

static bool is_last(const struct app_order *order, struct slice id)
{
    if (order->page_count == 0)
        return true;
    const struct order_page *page = order->pages[order->page_count - 1];
    return compare(page->apps[page->count - 1], id) < 0;
}

static void append(struct app_order *order, struct route_app *app)
{
    struct order_page *page = order->page_count > 0 ? order->pages[order->page_count - 1] : NULL;
    if (!page || page->count == PAGE_APPS)
        page = insert_page(order, order->page_count);
    page->apps[page->count++] = app;
}

void app_order_insert(struct app_order *order, struct route_app *app)
{
    struct slice id = slice_str(app->id);
    if (is_last(order, id)) {
        append(order, app);
        return;
    }
    size_t index = find_page(order, id);
    struct order_page *page = order->pages[index];
    size_t place = find_place(page, id);
    if (page->count == PAGE_APPS) {
        struct order_page *upper = insert_page(order, index + 1);
        size_t kept = PAGE_APPS / 2;
        upper->count = PAGE_APPS - kept;
        memcpy(upper->apps, &page->apps[kept], upper->count * sizeof(struct route_app *));
        page->count = kept;
        if (place > kept) {
            page = upper;
            place -= kept;
        }
    }
    memmove(&page->apps[place + 1], &page->apps[place], (page->count - place) * sizeof(struct route_app *));
    page->apps[place] = app;
    page->count++;
}

void app_order_replace(struct app_order *order, const struct route_app *before, struct route_app *after)
{
    struct slice id = slice_str(before->id);
    struct order_page *page = order->pages[find_page(order, id)];
    size_t place = find_place(page, id);
    assert(page->apps[place] == before);
    page->apps[place] = after;
}

static void join_next(struct app_order *order, size_t index)
{
    if (index + 1 >= order->page_count)
        return;
    struct order_page *page = order->pages[index];
    const struct order_page *next = order->pages[index + 1];
    if (page->count + next->count > JOINED_APPS)
        return;
    memcpy(&page->apps[page->count], next->apps, next->count * sizeof(struct route_app *));
    page->count += next->count;
    remove_page(order, index + 1);
}

void app_order_remove(struct app_order *order, const struct route_app *app)
{
    struct slice id = slice_str(app->id);
    size_t index = find_page(order, id);
    struct order_page *page = order->pages[index];
    size_t place = find_place(page, id);
    assert(page->apps[place] == app);
    page->count--;
    memmove(&page->apps[place], &page->apps[place + 1], (page->count - place) * sizeof(struct route_app *));
    if (page->count == 0) {
        remove_page(order, index);
        return;
    }
    join_next(order, index);
    if (index > 0)
        join_next(order, index - 1);
}

size_t app_order_each(const struct app_order *order, struct slice after, size_t limit, app_order_each_cb each,
                      void *arg)
{
    size_t index = order->page_count > 0 ? find_page(order, after) : 0;
    size_t given = 0;
    for (; index < order->page_count; index++) {
        const struct order_page *page = order->pages[index];
        size_t place = given == 0 ? find_place(page, after) : 0;
        if (given == 0 && place < page->count && compare(page->apps[place], after) == 0)
            place++;
        for (; place < page->count; place++) {
            if (given == limit)
                return given;
            given++;
            each(arg, page->apps[place]);
        }
    }
    return given;
}

void app_order_free(struct app_order *order)
{
    for (size_t i = 0; i < order->page_count; i++) {
        for (size_t k = 0; k < order->pages[i]->count; k++)
            route_app_free(&order->pages[i]->apps[k]);
        free(order->pages[i]);
    }
    free(order->pages);
    *order = (struct app_order){0};
}
