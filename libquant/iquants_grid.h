/* iquants_grid.h - the code books of the iq1, iq2 and iq3 formats.
 *
 * Byte b (from the least significant) of an entry is the magnitude of weight b of its group; iq1s entries
 * hold signed bytes -1, 0, 1. The tables are part of the file format. */
#ifndef KERF_IQUANTS_GRID_H
#define KERF_IQUANTS_GRID_H

#include <stdint.h>

extern const uint64_t iq2xxs_grid[256];
extern const uint64_t iq2xs_grid[512];
extern const uint64_t iq2s_grid[1024];
extern const uint32_t iq3xxs_grid[256];
extern const uint32_t iq3s_grid[512];
extern const uint64_t iq1s_grid[2048];

/* All eight signs of a group from the seven that are stored: the number of set bits is even. */
static inline uint8_t sign8(unsigned s7)
{
    return (uint8_t)(s7 | (unsigned)__builtin_parity(s7) << 7);
}

#endif
