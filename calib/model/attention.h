/* attention.h - causal attention of one block of queries over the keys of their windows, with grouped key
 * heads and an optional sliding window. Scores of a tile of queries and a block of keys are held at once,
 * however long the window. Truth: specification, architectures 0.11; sliding windows 0.10. */
#ifndef KERF_ATTENTION_H
#define KERF_ATTENTION_H

#include "ops.h"

struct attention_heads {
    uint32_t n_heads, n_kv_heads, key_dim, value_dim;
    uint32_t window;               /* keys a query sees, itself included; 0: all */
    size_t query_stride;           /* from one head's query to the next, >= key_dim */
    float *queries;                /* [n_queries, n_heads * query_stride]; head outputs replace the queries */
    const float *keys, *values;    /* [n_keys, n_kv_heads * dim] of the same windows */
    size_t first_query, n_queries; /* position of the first query among the keys */
    size_t ctx;                    /* windows begin at multiples of it */
};

/* Queries must begin and end at window borders, or lie inside one window. */
int attention_run(struct ops *o, const struct attention_heads *a, struct err *e);

/* What attention_run is going to do with the queries, which are left as they are: */
struct attention_look {
    const float *x; /* [n_queries, n_cols] inputs of keys and values; n_queries are whole windows */
    size_t n_cols;
    /* Called from the calling thread for each window in turn: its first token, the mass each token receives
     * [ctx] and the mixed inputs [n_mixed, n_cols], as in forward.h; borrowed during the call. */
    int (*take)(void *ctx, size_t first_token, const float *mass, const float *mixed, size_t n_mixed,
                struct err *e);
    void *ctx;
};

int attention_look(struct ops *o, const struct attention_heads *a, const struct attention_look *look,
                   struct err *e);

#endif
