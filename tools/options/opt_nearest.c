/* opt_nearest.c - the word that was probably meant. */
#include "opt.h"

#include <ctype.h>
#include <string.h>

/* Optimal string alignment distance: a swap of neighbours counts as one slip. */
static size_t distance(const char *a, const char *b)
{
    enum { MAX = 40 };
    size_t n = strlen(a), m = strlen(b);
    if (n >= MAX || m >= MAX)
        return MAX;
    size_t d[MAX][MAX];
    for (size_t i = 0; i <= n; i++) {
        for (size_t j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            size_t best =
                d[i - 1][j - 1] + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[n][m];
}

static size_t common_prefix(const char *a, const char *b)
{
    size_t n = 0;
    while (a[n] && tolower((unsigned char)a[n]) == tolower((unsigned char)b[n]))
        n++;
    return n;
}

const char *opt_nearest(const char *word, const char *const *candidates, size_t n)
{
    size_t len = strlen(word), best = len < 4 ? 1 : len < 6 ? 2 : len / 3, most = 0;
    const char *found = NULL;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(word, candidates[i]);
        if (len >= 3 && strncmp(word, candidates[i], len) == 0 && d > 1)
            d = 1; /* an abbreviation */
        size_t same = common_prefix(word, candidates[i]);
        if (d > 1 && len < 6 && same == 0) /* half of so short a word, and another beginning */
            continue;
        if (d < best || (d == best && (!found || same > most))) { /* of equals the one that begins alike */
            best = d;
            most = same;
            found = candidates[i];
        }
    }
    return found;
}
