/* gatewayctl compose: registers what a Compose project publishes, shows what that changes, and says under which URLs.
 */
#include "ctl_compose.h"

#include "gateway/ctl/compose_app.h"
#include "gateway/ctl/compose_env.h"
#include "gateway/ctl/compose_plan.h"
#include "gateway/ctl/text.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { MAX_ID_BYTES = 63, MAX_ATTEMPTS = 2 };

static void forget_state(struct ctl_project *p)
{
    json_decref(p->stored);
    json_decref(p->replaced);
    json_decref(p->planned);
    json_decref(p->changes);
    p->stored = p->replaced = p->planned = p->changes = NULL;
}

static void project_fini(struct ctl_project *p)
{
    forget_state(p);
    json_decref(p->domains);
    compose_free(&p->compose);
    compose_env_free(&p->env);
    free(p->app_id);
}

/* ---- the files ---- */

static const char *from_environment(void *arg, const char *name)
{
    (void)arg;
    return getenv(name);
}

static struct compose_settings settings_of(const struct ctl_project *p)
{
    const char *profiles = p->options->profile;
    return (struct compose_settings){.env = compose_env_value,
                                     .env_arg = p->env,
                                     .profiles = profiles ? profiles : compose_env_value(p->env, "COMPOSE_PROFILES")};
}

static bool read_env_file(struct ctl_project *p, const char *path)
{
    char error[COMPOSE_ERROR_MAX];
    size_t len;
    char *text = ctl_read_file(path, &len);
    bool ok = text && compose_env_read(p->env, slice_make(text, len), error);
    if (text && !ok)
        ctl_error("%s: %s", path, error);
    free(text);
    return ok;
}

/* .env in the folder of the project, which is that of its first file; a folder of this name is something else's. */
static bool read_default_env_file(struct ctl_project *p)
{
    struct stat found;
    const char *first = p->options->argv[0];
    const char *slash = strrchr(first, '/');
    char *path;
    if (asprintf(&path, "%.*s.env", slash ? (int)(slash - first) + 1 : 0, first) < 0)
        abort();
    bool is_there = stat(path, &found) == 0 ? !S_ISDIR(found.st_mode) : errno != ENOENT;
    bool ok = !is_there || read_env_file(p, path);
    free(path);
    return ok;
}

/* An app-compose.json is of a CVM, whose variables are not those of the folder where it lies. */
static bool read_env(struct ctl_project *p, bool is_app_compose)
{
    const char *files = p->options->env_file;
    bool ok = true;
    p->env = compose_env_new(from_environment, NULL);
    if (!files)
        return is_app_compose || read_default_env_file(p);
    while (ok && *files) {
        size_t len = strcspn(files, ",");
        char *path = strndup(files, len);
        if (!path)
            abort();
        ok = len == 0 || read_env_file(p, path);
        free(path);
        files += len + (files[len] == ',');
    }
    return ok;
}

static bool read_compose_files(struct ctl_project *p, struct slice first)
{
    char error[COMPOSE_ERROR_MAX];
    const struct ctl_options *options = p->options;
    struct compose_settings settings = settings_of(p);
    struct compose_reader *reader = compose_reader_new(&settings);
    const char *file = options->argv[0];
    char *text = NULL;
    bool ok = compose_reader_add(reader, first, error);
    for (int i = 1; ok && i < options->argc; i++) {
        size_t len;
        file = options->argv[i];
        free(text);
        if (!(text = ctl_read_file(file, &len))) {
            compose_reader_free(&reader);
            return false;
        }
        ok = compose_reader_add(reader, slice_make(text, len), error);
    }
    free(text);
    ok = ok && compose_reader_finish(reader, &p->compose, error);
    if (!ok)
        ctl_error("%s: %s", file, error);
    compose_reader_free(&reader);
    return ok;
}

static bool read_app_compose(struct ctl_project *p, struct slice text)
{
    char error[COMPOSE_ERROR_MAX];
    char id[COMPOSE_APP_ID_SIZE];
    struct compose_settings settings = settings_of(p);
    if (p->options->argc > 1) {
        ctl_error("%s: an app-compose.json stands for itself; give no other file with it", p->options->argv[0]);
        return false;
    }
    if (!compose_app_parse(text, &settings, &p->compose, error)) {
        ctl_error("%s: %s", p->options->argv[0], error);
        return false;
    }
    compose_app_id(text, id);
    if (p->app_id && strcmp(p->app_id, id) != 0 && !p->options->json)
        ctl_error("%s: note: its bytes make the id %s, but --app is used", p->options->argv[0], id);
    if (!p->app_id && !(p->app_id = strdup(id)))
        abort();
    return true;
}

static bool read_files(struct ctl_project *p)
{
    size_t len;
    char *text = ctl_read_file(p->options->argv[0], &len);
    struct slice first = slice_make(text, text ? len : 0);
    if (!text)
        return false;
    if (p->options->app && !(p->app_id = strdup(p->options->app)))
        abort();
    bool is_app_compose = compose_app_is(first);
    bool ok =
        read_env(p, is_app_compose) && (is_app_compose ? read_app_compose(p, first) : read_compose_files(p, first));
    free(text);
    if (ok && !p->app_id) {
        ctl_error("compose needs --app ID for a Compose file; see gatewayctl --help");
        return false;
    }
    return ok;
}

/* ---- options ---- */

static bool is_text(const char *text)
{
    json_t *json = json_string(text ? text : "");
    bool is = json != NULL;
    json_decref(json);
    return is;
}

static bool check_options(const struct ctl_options *options)
{
    uint64_t generation;
    if (!is_text(options->app) || !is_text(options->instance) || !is_text(options->address) ||
        !is_text(options->domain)) {
        ctl_error("--app, --instance, --address or --domain is not text");
    } else if (options->generation &&
               (!slice_to_u64(slice_str(options->generation), &generation) || generation > INT64_MAX)) {
        ctl_error("--generation %s: give a number", options->generation);
    } else if ((options->generation || options->instance) && !options->address) {
        ctl_error("--instance and --generation are about the instance at --address; give it too");
    } else if (options->exit_code && !options->dry_run) {
        ctl_error("--exit-code tells what --dry-run found; give both");
    } else {
        return true;
    }
    return false;
}

/* What is no address is left to the gateway to refuse. */
static void take_address(struct ctl_project *p)
{
    struct ip_addr addr;
    p->address = p->options->address;
    if (!p->address || !ip_parse(slice_str(p->address), &addr))
        return;
    ip_format(&addr, p->address_text);
    p->address = p->address_text;
}

/* ---- what the gateway has ---- */

static enum ctl_exit fetch_state(struct ctl_project *p)
{
    const struct ctl_options *options = p->options;
    enum ctl_exit result = ctl_compose_fetch(options, p->app_id, &p->stored);
    if (result == CTL_OK && options->replace && strcmp(options->replace, p->app_id) != 0)
        result = ctl_compose_fetch(options, options->replace, &p->replaced);
    if (result == CTL_OK && options->replace && !p->stored && !p->replaced) {
        ctl_error("--replace %s: the gateway has no such app", options->replace);
        result = CTL_REFUSED;
    }
    return result;
}

/* The base domains to print, from --domain or the gateway; an array of strings. */
static enum ctl_exit fetch_domains(struct ctl_project *p)
{
    json_t *json;
    if (p->options->domain) {
        p->domains = json_pack("[s]", p->options->domain);
        return CTL_OK;
    }
    enum ctl_exit result = ctl_http_json(p->options, &(struct ctl_call){.method = "GET", .path = "/v1/status"}, &json);
    p->domains = json_incref(json_object_get(json, "base_domains"));
    if (result == CTL_OK && !json_is_array(p->domains))
        result = CTL_UNREACHABLE;
    json_decref(json);
    return result;
}

/* ---- the plan ---- */

static void check_addresses(struct ctl_project *p)
{
    struct ip_addr addresses[64];
    size_t count = 0;
    size_t i;
    const json_t *instance;
    const json_t *own = json_object_get(p->stored, "instances");
    const json_t *instances = json_array_size(own) > 0 ? own : json_object_get(p->replaced, "instances");
    if (p->checked)
        return;
    if (p->address)
        count = ip_parse(slice_str(p->address), &addresses[0]);
    else
        json_array_foreach(instances, i, instance) if (count < sizeof addresses / sizeof addresses[0]) count +=
            ip_parse(slice_str(ctl_string(instance, "address")), &addresses[count]);
    compose_check_addresses(p->compose, addresses, count);
    p->checked = true;
}

static enum ctl_exit make_plan(struct ctl_project *p)
{
    uint64_t generation = 0;
    const struct ctl_options *options = p->options;
    bool has_generation = options->generation && slice_to_u64(slice_str(options->generation), &generation);
    struct compose_wish wish = {.app_id = p->app_id,
                                .compose = p->compose,
                                .address = p->address,
                                .instance = options->instance,
                                .has_generation = has_generation,
                                .generation = (json_int_t)generation};
    if (!p->stored && !p->replaced && !options->address) {
        ctl_error("app %s is not registered yet: give --address IP, where its instance is", p->app_id);
        return CTL_USAGE;
    }
    if (!options->instance && strlen(p->app_id) + strlen("-i1") > MAX_ID_BYTES && options->address) {
        ctl_error("the instance id %s-i1 has more than %d bytes; give a shorter one with --instance", p->app_id,
                  MAX_ID_BYTES);
        return CTL_USAGE;
    }
    p->planned = compose_plan(p->stored, p->replaced, &wish);
    p->changes = compose_diff(p->stored ? p->stored : p->replaced, p->planned);
    if (p->stored && p->replaced)
        compose_diff_remove_app(p->changes, p->replaced, p->planned);
    return CTL_OK;
}

/* ---- output: notes ---- */

/* Text of the user's as JSON; bytes that are no UTF-8 become '?'. */
static json_t *text_json(const char *text)
{
    json_t *json = json_string(text);
    if (json)
        return json;
    char *copy = strdup(text);
    for (char *c = copy; copy && *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    json = copy ? json_string(copy) : NULL;
    if (!json)
        abort();
    free(copy);
    return json;
}

/* Of domains that the app keeps, but that lead nowhere any more; and of an app to replace that is not there. */
static json_t *plan_notes_json(const struct ctl_project *p)
{
    size_t i;
    char *text;
    const json_t *domain;
    json_t *notes = json_array();
    const char *old = p->options->replace;
    if (old && strcmp(old, p->app_id) != 0 && !p->replaced) {
        if (asprintf(&text, "--replace %s: there is no such app (any more)", old) < 0)
            abort();
        json_array_append_new(notes, text_json(text));
        free(text);
    }
    bool restricts = json_is_true(json_object_get(p->planned, "restrict_ports"));
    json_array_foreach(json_object_get(p->planned, "domains"), i, domain)
    {
        const json_t *port = json_object_get(domain, "port");
        if (!restricts || compose_document_item(p->planned, "ports", "port", port))
            continue;
        if (asprintf(&text, "domain %s leads to port %lld, which the app does not publish", ctl_string(domain, "name"),
                     (long long)json_integer_value(port)) < 0)
            abort();
        json_array_append_new(notes, text_json(text));
        free(text);
    }
    return notes;
}

static json_t *notes_json(const struct ctl_project *p)
{
    json_t *notes = json_array();
    json_t *more = plan_notes_json(p);
    for (size_t i = 0; i < p->compose->note_count; i++) {
        char *line = compose_note_line(&p->compose->notes[i]);
        json_array_append_new(notes, text_json(line));
        free(line);
    }
    json_array_extend(notes, more);
    json_decref(more);
    return notes;
}

static json_t *left_out_json(const struct compose *compose)
{
    json_t *left_out = json_array();
    for (size_t i = 0; i < compose->note_count; i++) {
        const struct compose_note *note = &compose->notes[i];
        if (note->left_out)
            json_array_append_new(left_out, json_pack("{so so so}", "service", text_json(note->service), "entry",
                                                      text_json(note->entry), "reason", text_json(note->text)));
    }
    return left_out;
}

static void print_notes(const struct ctl_project *p)
{
    for (size_t i = 0; i < p->compose->note_count; i++) {
        char *line = compose_note_line(&p->compose->notes[i]);
        ctl_error("%s: note: %s", p->options->argv[0], line);
        free(line);
    }
}

/* ---- output: URLs ---- */

static const char *planned_protocol(const struct ctl_project *p, unsigned port)
{
    json_t *number = json_integer(port);
    const char *protocol = ctl_string(compose_document_item(p->planned, "ports", "port", number), "protocol");
    json_decref(number);
    return protocol;
}

/* tcp ports are no URL for a browser: their client speaks TLS, then whatever the app speaks. */
static json_t *url_json(const struct ctl_project *p, const struct compose_port *port, const char *domain)
{
    char *url;
    const char *protocol = planned_protocol(p, port->port);
    const char *scheme = strcmp(protocol, "tcp") == 0 ? "tls" : "https";
    if (asprintf(&url, "%s://%s-%u.%s", scheme, p->app_id, port->port, domain) < 0)
        abort();
    json_t *json = json_pack("{so si si ss ss}", "service", text_json(port->service), "port", (int)port->port, "target",
                             (int)port->target, "protocol", protocol, "url", url);
    free(url);
    return json;
}

static json_t *urls_json(const struct ctl_project *p)
{
    json_t *urls = json_array();
    for (size_t d = 0; d < json_array_size(p->domains); d++)
        for (size_t i = 0; i < p->compose->port_count; i++)
            json_array_append_new(urls,
                                  url_json(p, &p->compose->ports[i], json_string_value(json_array_get(p->domains, d))));
    return urls;
}

/* Not as a table, which would cut the URLs where the terminal ends: they are there to be copied. */
static void print_urls(const json_t *urls)
{
    size_t i;
    const json_t *item;
    size_t width = strlen("SERVICE");
    json_array_foreach(urls, i, item)
    {
        size_t columns = text_columns(slice_str(ctl_string(item, "service")));
        width = columns > width ? columns : width;
    }
    printf("%-*s  PORT   PROTOCOL     URL\n", (int)width, "SERVICE");
    json_array_foreach(urls, i, item)
    {
        size_t used = text_put(stdout, slice_str(ctl_string(item, "service")), width);
        printf("%*s  %-5lld  %-11s  %s\n", (int)(width - used), "",
               (long long)json_integer_value(json_object_get(item, "port")), ctl_string(item, "protocol"),
               ctl_string(item, "url"));
    }
}

/* ---- output: the whole ---- */

static void print_plan_notes(const struct ctl_project *p)
{
    size_t i;
    const json_t *note;
    json_t *notes = plan_notes_json(p);
    json_array_foreach(notes, i, note)
    {
        ctl_error("note: %s", json_string_value(note));
    }
    json_decref(notes);
}

static void print_plan(const struct ctl_project *p)
{
    size_t count = json_array_size(p->changes);
    if (p->stored)
        printf("app %s, revision %lld: ", p->app_id, ctl_compose_revision(p->stored));
    else if (p->replaced)
        printf("app %s, in the place of %s, revision %lld: ", p->app_id, ctl_string(p->replaced, "app_id"),
               ctl_compose_revision(p->replaced));
    else
        printf("app %s, not registered yet: ", p->app_id);
    if (count == 0)
        puts("nothing changes");
    else
        printf("%zu change%s\n", count, count == 1 ? "" : "s");
    compose_diff_print(p->changes, stdout);
    print_plan_notes(p);
}

static void print_result(const struct ctl_project *p, json_t *app)
{
    json_t *urls = urls_json(p);
    if (p->options->json) {
        json_t *all = json_pack("{sO sO so so so}", "app", app, "urls", urls, "changes", json_incref(p->changes),
                                "notes", notes_json(p), "left_out", left_out_json(p->compose));
        ctl_print_json(all);
        json_decref(all);
    } else {
        print_urls(urls);
    }
    json_decref(urls);
}

/* ---- the command ---- */

static bool has_work(const struct ctl_project *p)
{
    return json_array_size(p->changes) > 0;
}

/* One attempt: compare, show, do. */
static enum ctl_exit attempt(struct ctl_project *p, bool is_first, bool *ret_again)
{
    json_t *app = NULL;
    enum ctl_exit result = fetch_state(p);
    check_addresses(p);
    if (is_first && (!p->options->json || p->compose->port_count == 0))
        print_notes(p);
    if (result == CTL_OK && p->compose->port_count == 0) {
        ctl_error("%s: no port can be registered", p->options->argv[0]);
        return CTL_USAGE;
    }
    if (result == CTL_OK)
        result = make_plan(p);
    if (result != CTL_OK)
        return result;
    if (!p->options->json)
        print_plan(p);
    if (p->options->dry_run || !has_work(p))
        app = json_incref(p->options->dry_run ? p->planned : p->stored);
    else
        result = ctl_compose_apply(p, &app, ret_again);
    if (result == CTL_OK)
        print_result(p, app);
    json_decref(app);
    return result;
}

static enum ctl_exit run(struct ctl_project *p)
{
    enum ctl_exit result = fetch_domains(p);
    bool again = result == CTL_OK;
    if (result != CTL_OK && !p->options->json) /* what can't be served is known all the same */
        print_notes(p);
    for (unsigned i = 0; i < MAX_ATTEMPTS && again; i++) {
        again = false;
        forget_state(p);
        if (i > 0)
            ctl_error("the app was changed by somebody else meanwhile: compared again");
        result = attempt(p, i == 0, &again);
    }
    if (again)
        ctl_error("the app is being changed by others; nothing was done. Try again later");
    if (result == CTL_OK && p->options->exit_code && has_work(p))
        result = CTL_WOULD_CHANGE;
    return result;
}

enum ctl_exit ctl_compose(const struct ctl_options *options)
{
    struct ctl_project project = {.options = options};
    take_address(&project);
    enum ctl_exit result = check_options(options) && read_files(&project) ? run(&project) : CTL_USAGE;
    project_fini(&project);
    return result;
}
