/* inspect_key.h - `kerf inspect --key`: single metadata values, for scripts. */
#ifndef KERF_INSPECT_KEY_H
#define KERF_INSPECT_KEY_H

#include "inspection.h"
#include "tools/options/opt.h"

/* Print the values of the keys that `names` ask for, each exactly or by a pattern with * and ? (fnmatch), on
 * standard output: of one exact name its value alone (a text as it is, an array an element a line), else
 * lines "KEY=VALUE" whose texts are escaped; with `json` the one object, arrays whole. `path` is for
 * messages. Keys are those of a GGUF file, of a safetensors file, or of the outermost object of config.json.
 * ERR_ARG: a name that nothing has. */
int inspect_keys(const struct inspection *in, const char *path, const struct opt_list *names, bool json,
                 struct err *e);

#endif
