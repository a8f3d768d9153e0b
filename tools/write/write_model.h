/* write_model.h - the common body of `convert` and `quantize`: their options, one call of the engine, the
 * report. */
#ifndef KERF_WRITE_MODEL_H
#define KERF_WRITE_MODEL_H

#include "tools/cmd.h"

struct write_command {
    const char *name, *description, *examples;
    bool needs_type; /* quantize: --type or --plan must be given */
};

int write_model_command(const struct write_command *wc, int argc, char **argv);

#endif
