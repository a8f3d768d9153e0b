/* fuzz_model_card.c - any bytes as a README.md: a tree or an error, never more; and every text of the tree as
 * a model name. */
#include "formats/metadata/model_card.h"
#include "formats/metadata/model_name.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Visit every node; names are tried on texts. Returns the number of nodes, which the input bounds. */
static size_t walk(const struct card_node *n, struct arena *arena)
{
    size_t count = 1;
    if (n->kind == CARD_TEXT) {
        struct model_name name;
        const char *title;
        if (model_name_parse(&name, n->text, 7000000000, arena, NULL) == 0)
            (void)model_name_title(&title, name.full, arena, NULL);
    }
    for (const struct card_node *c = n->first; c; c = c->next)
        count += walk(c, arena);
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model_card *card = NULL;
    struct err e = {0};
    if (model_card_parse(&card, (const char *)data, size, &e) != 0)
        return e.msg[0] ? 0 : (abort(), 0);
    struct arena arena = {0};
    if (walk(model_card_root(card), &arena) > size + 1)
        abort();
    arena_release(&arena);
    model_card_free(card);
    return 0;
}
