/* test_readme.c - the table of families in the README is the one the descriptors give. */
#include "formats/arch/arch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void the_readme_lists_the_families_as_the_descriptors_do(void **state)
{
    (void)state;
    char *table = NULL, readme[65536];
    size_t n = 0;
    FILE *f = open_memstream(&table, &n);
    assert_non_null(f);
    arch_write_table(f);
    fclose(f);
    f = fopen(KERF_TEST_DATA "/../../README.md", "rb");
    assert_non_null(f);
    size_t len = fread(readme, 1, sizeof readme - 1, f);
    fclose(f);
    readme[len] = 0;
    assert_true(n > 100);
    if (!strstr(readme, table))
        printf("README.md needs this table:\n%s", table);
    assert_non_null(strstr(readme, table));
    free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_readme_lists_the_families_as_the_descriptors_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
