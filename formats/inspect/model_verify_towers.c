/* model_verify_towers.c - files of vision and audio towers: keys, names, shapes, and that every layer is
 * whole.
 *
 * The numbers come from the clip.* keys; those that no key gives (channels, positions) from the tensor that
 * has them, so that the others are held to it. Truth: formats/tower. */
#include "model_verify_internal.h"

#include "formats/tower/tower.h"

#include <inttypes.h>
#include <string.h>

/* Symbols that no key gives: axis `axis`, fastest first, of a tensor. */
static void take_shapes(struct arch_model *a, const struct model *m)
{
    static const struct {
        enum arch_symbol symbol;
        const char *tensor;
        unsigned axis;
    } from[] = {
        {ARCH_VC, "v.patch_embd.weight", 2},   {ARCH_VX, "v.position_embd.weight", 1},
        {ARCH_VF, "v.blk.0.ffn_up.weight", 1}, {ARCH_AX, "a.position_embd.weight", 1},
        {ARCH_AC, "a.conv2d.1.weight", 3},     {ARCH_AW, "a.conv_out.weight", 0},
    };
    for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
        const struct model_tensor *t = model_find(m, from[i].tensor);
        if (!t || a->known[from[i].symbol])
            continue;
        a->value[from[i].symbol] = t->ne[from[i].axis];
        a->known[from[i].symbol] = true;
    }
}

/* Layers that no key counts: one more than the last that is there, so that a hole shows. */
static void count_layers(struct arch_model *a, const struct model *m)
{
    static const struct {
        enum arch_symbol symbol;
        const char *tensors;
    } from[] = {{ARCH_WN, "a.gen.wav.tfm.blk.N.ln1.weight"}, {ARCH_WU, "a.gen.wav.up.blk.N.conv.weight"}};
    for (size_t i = 0; i < sizeof from / sizeof *from; i++)
        for (size_t k = 0; k < model_n_tensors(m); k++) {
            uint64_t layer;
            if (!arch_match(from[i].tensors, model_tensor(m, k)->name, &layer, NULL))
                continue;
            if (layer >= a->value[from[i].symbol] && layer < ARCH_MAX_LAYERS)
                a->value[from[i].symbol] = layer + 1;
            a->known[from[i].symbol] = true;
        }
}

static int check_row(struct verify_owner *o, const struct arch_model *a, const struct arch_group *g,
                     const struct arch_row *row, const struct model *m, struct err *e)
{
    bool layered = strstr(row->gguf, ".N.") != NULL;
    uint64_t n = layered ? arch_layers(a, g) : 1;
    int rc = 0;
    for (uint64_t layer = 0; rc == 0 && layer < n; layer++) {
        if (!arch_row_applies(a, g, row, layer))
            continue;
        const char *name = arch_name_of(row->gguf, layer, &o->arena);
        if (!name)
            return err_set(e, ERR_NOMEM, "out of memory for the findings");
        if (!model_find(m, name))
            rc = verify_add(o, &o->findings, e, "tensor '%s' is missing", name);
    }
    return rc;
}

static int check_presence(struct verify_owner *o, const struct arch_model *a, const struct model *m,
                          struct err *e)
{
    int rc = 0;
    for (const struct arch_group *g = a->arch->groups; rc == 0 && g->rows; g++)
        for (size_t i = 0; rc == 0 && i < g->n; i++)
            rc = check_row(o, a, g, &g->rows[i], m, e);
    return rc;
}

/* A tensor of a layer that the keys do not count. */
static int check_beyond(struct verify_owner *o, const struct arch_model *a, const struct model_tensor *t,
                        struct err *e)
{
    for (const struct arch_group *g = a->arch->groups; g->rows; g++)
        for (size_t i = 0; i < g->n; i++) {
            uint64_t layer = 0;
            if (!arch_match(g->rows[i].gguf, t->name, &layer, NULL) || !strstr(g->rows[i].gguf, ".N."))
                continue;
            if (layer >= arch_layers(a, g) || !arch_row_applies(a, g, &g->rows[i], layer))
                return verify_add(o, &o->findings, e,
                                  "tensor '%s': the keys count no such layer (%" PRIu64 " of its kind)",
                                  t->name, arch_layers(a, g));
        }
    return 0;
}

int verify_towers(struct verify_owner *o, const struct model *m, struct err *e)
{
    struct arch_model a;
    const char *missing = NULL;
    tower_of_file(&a, &missing, model_meta(m));
    if (!a.arch)
        return verify_add(o, &o->notes, e,
                          "the projector of these towers is unknown here: names and shapes were not checked");
    if (missing)
        return verify_add(o, &o->findings, e,
                          "key '%s' is missing, or not a whole number: no runtime loads the file", missing);
    take_shapes(&a, m);
    count_layers(&a, m);
    int rc = verify_shapes(o, &a, m, e);
    for (size_t i = 0; rc == 0 && i < model_n_tensors(m); i++)
        rc = check_beyond(o, &a, model_tensor(m, i), e);
    return rc == 0 ? check_presence(o, &a, m, e) : rc;
}
