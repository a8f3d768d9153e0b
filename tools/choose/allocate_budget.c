/* allocate_budget.c - see allocate_budget.h. */
#include "allocate_budget.h"

#include "formats/inspect/footprint.h"

#include <inttypes.h>

#define LEAST_WORKING_MEMORY ((uint64_t)1 << 20)

bool budget_is_device(const struct budget_options *b)
{
    return b->target_size == 0 && b->target_bpw == 0;
}

int budget_check(const struct opt_command *cmd, const struct budget_options *b)
{
    const bool device = budget_is_device(b);
    if (b->target_size > 0 && b->target_bpw > 0)
        return cmd_usage(cmd, "give one of --target-size and --target-bpw");
    if (device && (b->memory == 0 || b->ctx == 0))
        return cmd_usage(cmd, "give one of --target-size, --target-bpw, and --memory with --ctx");
    if (device && b->ctx > FOOTPRINT_MAX_CTX)
        return cmd_usage(cmd, "--ctx: expected at most %" PRIu64 " tokens", FOOTPRINT_MAX_CTX);
    struct kv_cache kv;
    if (b->kv_type && !kv_cache_parse(&kv, b->kv_type))
        return cmd_usage(cmd,
                         "--kv-type '%s': expected a type, or two with a comma between, of " KV_CACHE_TYPES,
                         b->kv_type);
    if (!device && b->kv_type)
        return cmd_usage(
            cmd, "--kv-type is for a device, which --memory and --ctx describe without another target");
    if (!device && b->memory && b->memory < LEAST_WORKING_MEMORY)
        return cmd_usage(cmd, "--memory: expected a size of at least 1MiB as the bound on working memory");
    return 0;
}

void budget_take_shared(const struct budget_options *b, uint64_t *text_ctx, struct shared_options *shared)
{
    if (budget_is_device(b))
        return;
    if (b->ctx)
        *text_ctx = b->ctx;
    if (b->memory)
        shared->memory_bytes = b->memory;
}

/* What the cache and the working space of the device leave for weights. */
static int weights_of_device(uint64_t *n_bytes, const struct budget_options *o, const struct model *m,
                             const struct shared_options *shared, struct err *e)
{
    struct footprint f;
    struct kv_cache kv = {QTYPE_F16, QTYPE_F16};
    int rc = footprint_init(&f, m, e);
    if (rc != 0)
        return rc;
    if (o->kv_type)
        kv_cache_parse(&kv, o->kv_type); /* which budget_check has done, too */
    uint64_t cache = footprint_cache_bytes(&f, o->ctx, kv), work = footprint_work_bytes(&f, o->ctx);
    uint64_t taken = footprint_total_bytes(&f, 0, o->ctx, kv);
    if (f.trained_ctx && o->ctx > f.trained_ctx)
        cmd_warn(shared,
                 "[ctx-beyond-training] %" PRIu64 " tokens are more than the %" PRIu64
                 " that the model was trained for",
                 o->ctx, f.trained_ctx);
    if (footprint_caches_keys_alone(&f))
        cmd_warn_idle_values(shared, model_path(m), &kv);
    footprint_release(&f);
    if (taken >= o->memory)
        return err_set(e, ERR_ARG,
                       "the cache of %" PRIu64 " tokens takes %" PRIu64 " bytes and working space %" PRIu64
                       ", which leaves nothing of --memory for weights",
                       o->ctx, cache, work);
    *n_bytes = o->memory - taken;
    return 0;
}

int budget_bytes(uint64_t *out, const struct budget_options *b, const struct allocator *a,
                 const struct shared_options *shared, struct err *e)
{
    uint64_t n_bytes = 0;
    *out = b->target_bpw > 0 ? allocator_budget_of_bits(a, b->target_bpw) : b->target_size;
    if (!budget_is_device(b))
        return 0;
    int rc = weights_of_device(&n_bytes, b, allocator_table(a)->model, shared, e);
    if (rc == 0)
        *out = allocator_budget_of_weights(a, n_bytes);
    return rc;
}
