/* model_card.h - the YAML front matter of a README.md, as far as model cards use YAML.
 *
 * Understood: block maps and lists at any depth, flow lists and maps, plain, quoted, literal and folded
 * scalars, comments. Every scalar is text (a language `no` is not a boolean here); `~`, `null` and nothing
 * are null. Refused with a line number: anchors, aliases, tags, more than 32 levels, anything else. The text
 * is hostile: work and memory are linear in it. */
#ifndef KERF_MODEL_CARD_H
#define KERF_MODEL_CARD_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum card_kind { CARD_NULL, CARD_TEXT, CARD_LIST, CARD_MAP };

struct card_node {
    enum card_kind kind;
    const char *key;  /* of a map's child; else NULL */
    const char *text; /* of CARD_TEXT; NUL-terminated UTF-8 */
    const struct card_node *first, *next;
};

struct model_card; /* owns its nodes */

/* `text` is the whole README.md. Without front matter (first line not exactly "---") the card is empty.
 * *out: caller frees with model_card_free. ERR_FORMAT names the line. */
int model_card_parse(struct model_card **out, const char *text, size_t len, struct err *e);
void model_card_free(struct model_card *c);

const struct card_node *model_card_root(const struct model_card *c); /* a map; never NULL */

/* Child of a map by key; the last one when a key is repeated; NULL when absent or `map` is no map. */
const struct card_node *card_get(const struct card_node *map, const char *key);

#endif
