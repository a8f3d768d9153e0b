/* requests.c - see requests.h. */
#include "requests.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct maker {
    struct requests r;
    const struct task *task;
    const struct request_options *opt;
    const struct tokenizer *t;
    struct chat_template *chat; /* NULL: none */
    int32_t prefix;             /* what stands before a text without context */
    size_t cap, cap_ids;
    bool cut; /* a context of the current record was */
};

size_t request_n_scored(const struct request *r)
{
    return r->len - r->first;
}

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the tokens of the records");
}

/* Room for a request of n ids; *ids: where they go. */
static int add(struct request **out, int32_t **ids, struct maker *m, size_t n, struct err *e)
{
    if (m->r.n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 256;
        struct request *grown =
            cap < SIZE_MAX / sizeof *grown ? realloc(m->r.items, cap * sizeof *grown) : NULL;
        if (!grown)
            return no_memory(e);
        m->r.items = grown;
        m->cap = cap;
    }
    if (n > m->cap_ids - m->r.n_ids) {
        size_t cap = m->cap_ids + m->cap_ids / 2 + n + 4096;
        int32_t *grown = cap < SIZE_MAX / sizeof *grown ? realloc(m->r.ids, cap * sizeof *grown) : NULL;
        if (!grown)
            return no_memory(e);
        m->r.ids = grown;
        m->cap_ids = cap;
    }
    *ids = m->r.ids + m->r.n_ids;
    *out = &m->r.items[m->r.n++];
    **out = (struct request){.begin = m->r.n_ids, .len = n};
    m->r.n_ids += n;
    return 0;
}

static int encode(int32_t **ids, size_t *n, const struct maker *m, const char *text, size_t len, bool special,
                  bool parse, struct err *e)
{
    struct tokenize_options opt = {.add_special = special, .parse_special = parse};
    return tokenizer_encode(m->t, text, len, &opt, ids, n, e);
}

/* The context as the model reads it; caller frees. */
static int render_context(char **out, size_t *len, const struct maker *m, const struct task_record *x,
                          const struct task_choice *c, struct err *e)
{
    struct chat_message own = {"user", c->context};
    if (m->chat)
        return chat_render(m->chat, x->messages ? x->messages : &own, x->messages ? x->n_messages : 1, true,
                           out, len, e);
    if (x->messages)
        return err_set(e, ERR_UNSUPPORTED, "the record holds messages: give --chat to render them");
    *len = strlen(c->context);
    *out = strdup(c->context);
    return *out ? 0 : no_memory(e);
}

/* Context and continuation as one text; *split: where the continuation begins, the spaces before it
 * included. Caller frees. */
static int join(char **out, size_t *len, size_t *split, const struct maker *m, const struct task_record *x,
                const struct task_choice *c, struct err *e)
{
    const char *text = c->text + (m->chat ? c->n_delimiter : 0);
    char *context = NULL;
    size_t n = 0, n_text = strlen(text);
    int rc = render_context(&context, &n, m, x, c, e);
    char *both = rc == 0 ? realloc(context, n + n_text + 1) : NULL;
    if (!both) {
        free(context);
        return rc ? rc : no_memory(e);
    }
    memcpy(both + n, text, n_text + 1);
    *out = both;
    *len = n + n_text;
    while (n > 0 && isspace((unsigned char)both[n - 1]))
        n--;
    *split = n;
    return 0;
}

/* The ids of the whole, the prefix before them where there is no context, and how many are the context's. */
static int encode_pair(int32_t **ids, size_t *n, size_t *n_context, const struct maker *m, const char *text,
                       size_t len, size_t split, struct err *e)
{
    bool parse = m->opt->parse_special || m->chat;
    int32_t *context = NULL;
    int rc = encode(ids, n, m, text, len, split > 0, parse, e);
    *n_context = 0;
    if (rc == 0 && split > 0)
        rc = encode(&context, n_context, m, text, split, true, parse, e);
    free(context);
    if (rc == 0 && *n_context == 0) {
        int32_t *grown = realloc(*ids, (*n + 1) * sizeof *grown);
        if (!grown)
            return no_memory(e);
        memmove(grown + 1, grown, *n * sizeof *grown);
        grown[0] = m->prefix;
        *ids = grown;
        *n += 1;
        *n_context = 1;
    }
    return rc;
}

/* A choice: the last ctx + 1 ids, of which the last is only a target. */
static int add_choice(struct maker *m, const struct task_record *x, size_t k, struct err *e)
{
    char *text = NULL;
    int32_t *ids = NULL, *to = NULL;
    size_t len = 0, split = 0, n = 0, n_context = 0, most = m->opt->ctx + 1;
    struct request *r = NULL;
    int rc = join(&text, &len, &split, m, x, &x->choices[k], e);
    if (rc == 0)
        rc = encode_pair(&ids, &n, &n_context, m, text, len, split, e);
    free(text);
    if (rc == 0 && n <= n_context)
        rc = err_set(e, ERR_FORMAT, "choice %zu adds no token to its context", k);
    if (rc == 0 && n - n_context > m->opt->ctx)
        rc = err_set(e, ERR_ARG, "choice %zu has %zu tokens, more than the context of %zu", k, n - n_context,
                     m->opt->ctx);
    size_t dropped = rc == 0 && n > most ? n - most : 0;
    if (rc == 0)
        rc = add(&r, &to, m, n - dropped, e);
    if (rc == 0) {
        memcpy(to, ids + dropped, (n - dropped) * sizeof *to);
        r->own_first = n_context - dropped;
        r->first = r->mean_first = r->own_first;
        r->mean_end = r->len;
        m->cut |= dropped > 0;
    }
    free(ids);
    return rc;
}

/* How many ids all choices of a record begin with. */
static size_t common_prefix(const struct maker *m, const struct request *r, size_t n)
{
    for (size_t k = 0;; k++)
        for (size_t i = 0; i < n; i++)
            if (k == r[i].len || m->r.ids[r[i].begin + k] != m->r.ids[r[0].begin + k])
                return k;
}

#define MIN_TRAILING                                                                                         \
    3 /* of WinoGrande: with more tokens than this behind the place where choices differ ... */

/* Where means are taken, as llama-perplexity takes them: from where the choices differ to the end. Of
 * WinoGrande: from behind the option where enough tokens follow it, and without the last token. (There, with
 * few of them, the second choice's first token is read from the wrong place; here it is not.) */
static void set_means(struct maker *m, const struct task_record *x, struct request *r)
{
    size_t common = common_prefix(m, r, x->n_choices);
    bool enough = true;
    for (size_t i = 0; i < x->n_choices; i++)
        enough &= r[i].len - common > MIN_TRAILING;
    for (size_t i = 0; i < x->n_choices; i++) {
        bool winogrande = x->style == TASK_WINOGRANDE;
        size_t from = winogrande && enough ? r[i].own_first : common;
        from = from < 1 ? 1 : from;
        from = from < r[i].len ? from : r[i].len - 1;
        r[i].mean_first = from;
        r[i].mean_end = winogrande && r[i].len - from > 1 ? r[i].len - 1 : r[i].len;
        r[i].first = from < r[i].own_first ? from : r[i].own_first;
    }
}

/* A text in windows of ctx ids: the first begins behind the prefix, each other one with the last token
 * before it, the last reaches back to be full. Every token is scored once. */
static int add_text(struct maker *m, const struct task_record *x, struct err *e)
{
    const char *text = x->choices[0].text;
    int32_t *ids = NULL, *to = NULL;
    size_t n = 0, ctx = m->opt->ctx;
    int rc = encode(&ids, &n, m, text, strlen(text), false, m->opt->parse_special, e);
    if (rc == 0 && n == 0)
        rc = err_set(e, ERR_FORMAT, "the text has no token");
    for (size_t done = 0; rc == 0 && done < n;) {
        size_t now = n - done < ctx ? n - done : ctx, end = done + now;
        size_t from = end > ctx ? end - ctx - 1 : 0; /* with the prefix in place of the token before */
        struct request *r = NULL;
        bool opens = done == 0;
        size_t len = opens ? now + 1 : end - from;
        rc = add(&r, &to, m, len, e);
        if (rc != 0)
            break;
        if (opens)
            to[0] = m->prefix;
        memcpy(to + opens, ids + (opens ? 0 : from), (len - opens) * sizeof *to);
        r->first = r->own_first = r->mean_first = len - now;
        r->mean_end = len;
        done = end;
    }
    free(ids);
    return rc;
}

static int add_record(struct maker *m, const struct task_record *x, struct err *e)
{
    size_t before = m->r.n;
    int rc = 0;
    m->cut = false;
    if (x->kind == TASK_TEXT)
        rc = add_text(m, x, e);
    for (size_t k = 0; rc == 0 && x->kind != TASK_TEXT && k < x->n_choices; k++)
        rc = add_choice(m, x, k, e);
    if (rc == 0 && x->kind == TASK_CHOICE)
        set_means(m, x, m->r.items + before);
    m->r.n_cut += m->cut;
    return rc == 0 ? 0 : err_context(e, rc, "%s: %s %zu", m->task->path, m->task->unit, x->place);
}

static int open_chat(struct maker *m, struct err *e)
{
    const char *text = m->opt->chat_template;
    int rc = text ? chat_template_new(&m->chat, text, e) : 0;
    return rc == 0 ? 0 : err_context(e, rc, "the model's chat template");
}

int requests_make(struct requests *out, const struct task *task, const struct vocabulary *v,
                  const struct request_options *opt, struct err *e)
{
    struct tokenizer *t = NULL;
    struct maker m = {.task = task, .opt = opt, .prefix = (int32_t)(v->bos >= 0 ? v->bos : v->eos)};
    int rc = tokenizer_new(&t, v, e);
    m.t = t;
    if (rc == 0 && m.prefix < 0)
        rc = err_set(e, ERR_UNSUPPORTED, "the vocabulary has no BOS and no EOS to begin a text with");
    if (rc == 0 && tokenizer_adds_eos(t))
        rc = err_set(e, ERR_UNSUPPORTED,
                     "the vocabulary appends an end-of-text token to every text, so nothing continues one");
    if (rc == 0)
        rc = open_chat(&m, e);
    m.r.record_begin = calloc(task->n_records + 1, sizeof *m.r.record_begin);
    if (rc == 0 && !m.r.record_begin)
        rc = no_memory(e);
    for (size_t i = 0; rc == 0 && i < task->n_records; i++) {
        rc = add_record(&m, &task->records[i], e);
        m.r.record_begin[i + 1] = m.r.n;
    }
    chat_template_free(m.chat);
    tokenizer_free(t);
    if (rc != 0) {
        requests_release(&m.r);
        return rc;
    }
    *out = m.r;
    return 0;
}

void requests_release(struct requests *r)
{
    if (!r)
        return;
    free(r->items);
    free(r->ids);
    free(r->record_begin);
    *r = (struct requests){0};
}
