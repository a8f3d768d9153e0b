/* adapter_options.h - adapters that a command merges: ADAPTER[=SCALE]. */
#ifndef KERF_ADAPTER_OPTIONS_H
#define KERF_ADAPTER_OPTIONS_H

#include "opt.h"

#include "formats/json.h"
#include "formats/model/model.h"
#include "libquant/base/arena.h"

struct adapter_list {
    struct model_adapter *items; /* in `arena`, as their paths */
    size_t n;
    struct arena arena;
};

/* ERR_ARG: an output of this name would replace the adapter (a file, or those of a folder). */
int adapter_check_output(const char *adapter, const char *output, struct err *e);

/* Each as model_adapter_parse takes it. `output` (may
 * be NULL) must be none of their files. *out: released with adapter_list_release, also on failure. ERR_ARG:
 * the scale is no finite number. */
int adapter_list_parse(struct adapter_list *out, const struct opt_list *args, const char *output,
                       struct err *e);
void adapter_list_release(struct adapter_list *l);

/* The key "adapters": path, scale, SHA-256, changed and replaced tensors of each. */
void adapters_json(const struct model *m, struct json_writer *w);

#endif
