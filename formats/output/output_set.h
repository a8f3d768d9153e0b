/* output_set.h - several outputs that appear as one: the parts of a split set, of which a reader opens the
 * first.
 *
 *     output_file_open(&files[i], ...);  output_file_write_at(...);  output_file_seal(files[i], ...); for
 * each output_set_commit(files, n, e);
 *
 * One rename is atomic, n are not. The order makes up for it; an older set, with `overwrite`, is set aside as
 * `<path>.kerf-old`:
 *
 *     1. first part of the older set aside       from here on no set stands under the name
 *     2. its other parts aside
 *     3. new parts 2 .. n to their names
 *     4. new part 1 to its name                  from here on the new set stands
 *     5. the older parts removed, the first one last
 *
 * What is guaranteed, whatever fails and whenever the process is killed or the power goes:
 *   - whoever opens the first part finds nothing, the whole older set, or the whole new set, never a mix;
 *   - when a step up to 4 fails, all are taken back: the older set stands again, the new parts are temporary
 *     files again (kept or removed as `keep_partial` says);
 *   - after a kill between 1 and 4, output_set_recover takes them back in the same way, so nothing of the
 * older set is lost, and a run that is resumed has all its parts. Until then the older parts that are not
 * under their names stand as `<path>.kerf-old`. After a kill in step 5, output_set_recover removes what is
 * left, which it does only when every new part is in its place: if somebody else put a file under the first
 * name meanwhile, it changes nothing and says so;
 *   - without `overwrite` nothing that exists is replaced, also when it appears during the commit. */
#ifndef KERF_OUTPUT_SET_H
#define KERF_OUTPUT_SET_H

#include "output_file.h"

/* Rename `n` sealed outputs of one folder. Frees every files[i] and sets it to NULL, in every case. */
int output_set_commit(struct output_file **files, size_t n, struct err *e);

/* Bring the set of these paths out of an interrupted commit; to be called before its outputs are opened.
 * Nothing happens when there was none. Parts that have their names already, while the first has not, are ours
 * only if `is_ours` (ctx, index) says so: somebody else's file is left alone. ERR_IO: another process is at
 * this set, a rename failed, or what stands there is the state of no commit; the message says what stands
 * where. */
int output_set_recover(const char *const *paths, size_t n, bool (*is_ours)(void *ctx, size_t i), void *ctx,
                       struct err *e);

/* Will there be a file at paths[i] once output_set_recover has run? For those who only look: changes nothing.
 */
bool output_set_stands(const char *const *paths, size_t n, size_t i, bool (*is_ours)(void *ctx, size_t i),
                       void *ctx);

#endif
