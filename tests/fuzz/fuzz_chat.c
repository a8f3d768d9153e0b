/* fuzz_chat.c - any text as a chat template, and what follows its first NUL as messages. */
#include "formats/tokenizer/chat.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const roles[] = {"user", "assistant", "system"};
    struct chat_template *c = NULL;
    struct chat_message m[4];
    struct err e = {0};
    char *text = malloc(size + 1), *out = NULL;
    size_t len = 0, n = 0;
    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    if (chat_template_new(&c, text, &e) == 0) {
        for (char *p = text + strlen(text) + 1; n < 4 && p < text + size; p += strlen(p) + 1)
            m[n] = (struct chat_message){roles[n % 3], p}, n++;
        if (chat_render(c, m, n, true, &out, &len, &e) == 0 && len != strlen(out))
            abort();
    } else if (!e.msg[0]) {
        abort();
    }
    free(out);
    free(text);
    chat_template_free(c);
    return 0;
}
