/* test_fused_experts.c - gate and up of the experts in one tensor, gate first, as llama.cpp's converter can
 * write them: the figures, and the sums of importance, are those of the two. */
#include "formats/gguf/gguf_read.h"
#include "formats/gguf/gguf_write.h"
#include "formats/gguf/imatrix_file.h"
#include "toy_gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TENSORS 200

/* Expert by expert: the rows of its gate, then those of its up. */
static void put_both(uint8_t *to, const struct gguf_tensor *gate, const struct gguf_tensor *up)
{
    size_t n = (size_t)(gate->n_bytes / gate->ne[2]);
    for (uint64_t x = 0; x < gate->ne[2]; x++) {
        memcpy(to + 2 * x * n, gate->data + x * n, n);
        memcpy(to + (2 * x + 1) * n, up->data + x * n, n);
    }
}

static void fuse(struct toy_gguf *out, const struct toy_gguf *in)
{
    static char names[MAX_TENSORS][80];
    struct gguf_out_tensor list[MAX_TENSORS];
    const struct gguf_tensor *gates[MAX_TENSORS], *ups[MAX_TENSORS];
    struct gguf_reader *r = NULL;
    struct err e = {0};
    size_t n = 0, header;
    uint64_t n_bytes;
    uint8_t *file = NULL;
    assert_int_equal(gguf_reader_open_memory(&r, in->bytes, in->n_bytes, "toy", NULL, &e), 0);
    for (size_t i = 0; i < gguf_reader_n_tensors(r); i++) {
        const struct gguf_tensor *t = gguf_reader_tensor(r, i);
        const char *at = strstr(t->name, "ffn_gate_exps");
        if (strstr(t->name, "ffn_up_exps"))
            continue;
        snprintf(names[n], sizeof names[n], "%s", t->name);
        gates[n] = t;
        ups[n] = NULL;
        list[n] = (struct gguf_out_tensor){.name = names[n], .type = t->type, .n_dims = t->n_dims};
        memcpy(list[n].ne, t->ne, sizeof t->ne);
        if (at) {
            char up[80];
            snprintf(up, sizeof up, "%.*sffn_up_exps%s", (int)(at - t->name), t->name,
                     at + strlen("ffn_gate_exps"));
            snprintf(names[n], sizeof names[n], "%.*sffn_gate_up_exps%s", (int)(at - t->name), t->name,
                     at + strlen("ffn_gate_exps"));
            ups[n] = gguf_reader_find(r, up);
            assert_non_null(ups[n]);
            list[n].ne[1] *= 2;
        }
        n++;
        assert_true(n < MAX_TENSORS);
    }
    assert_int_equal(gguf_layout(gguf_reader_meta(r), list, n, &file, &header, &n_bytes, &e), 0);
    *out = *in; /* shares the folder */
    out->n_bytes = (size_t)n_bytes;
    out->bytes = calloc(1, out->n_bytes);
    memcpy(out->bytes, file, header);
    for (size_t i = 0; i < n; i++)
        if (ups[i])
            put_both(out->bytes + list[i].offset, gates[i], ups[i]);
        else
            memcpy(out->bytes + list[i].offset, gates[i]->data, (size_t)gates[i]->n_bytes);
    free(file);
    gguf_reader_close(r);
}

static void one_tensor_gives_the_figures_of_two(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen3moe", "qwen2moe", "qwen35moe", "mixtral"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct toy_gguf two, one;
        struct toy_figures a, b;
        struct err e = {0};
        if (toy_gguf_make(&two, names[i], &e) != 0 || toy_gguf_run(&two, &a, &e) != 0)
            fail_msg("%s: %s", names[i], e.msg);
        fuse(&one, &two);
        if (toy_gguf_run(&one, &b, &e) != 0)
            fail_msg("%s, fused: %s", names[i], e.msg);
        assert_true(a.perplexity == b.perplexity && a.imatrix_perplexity == b.imatrix_perplexity);
        assert_true(a.quantized_ppl == b.quantized_ppl);
        assert_true(b.n_entries < a.n_entries &&
                    b.sum < a.sum); /* one entry in place of two that are alike */
        free(one.bytes);
        toy_gguf_release(&two);
    }
}

static void entries_serve_both_forms(void **state)
{
    (void)state;
    struct imatrix *m = NULL;
    struct imatrix_entry *both, *gate, *up;
    struct err e = {0};
    assert_int_equal(imatrix_new(&m, &e), 0);
    assert_int_equal(imatrix_add(m, "blk.0.ffn_gate_up_exps.weight", 64, 4, &both, &e), 0);
    assert_int_equal(imatrix_add(m, "blk.1.ffn_gate_exps.weight", 64, 4, &gate, &e), 0);
    assert_int_equal(imatrix_add(m, "blk.1.ffn_up_exps.weight", 64, 4, &up, &e), 0);
    assert_ptr_equal(imatrix_find_for(m, "blk.0.ffn_gate_exps.weight"), both);
    assert_ptr_equal(imatrix_find_for(m, "blk.0.ffn_up_exps.weight"), both);
    assert_ptr_equal(imatrix_find_for(m, "blk.1.ffn_up_exps.weight"), up);
    assert_ptr_equal(imatrix_find_for(m, "blk.1.ffn_gate_up_exps.weight"), gate);
    assert_null(imatrix_find_for(m, "blk.0.ffn_down_exps.weight"));
    assert_null(imatrix_find_for(m, "blk.2.ffn_gate_up_exps.weight"));
    imatrix_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_tensor_gives_the_figures_of_two),
        cmocka_unit_test(entries_serve_both_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
