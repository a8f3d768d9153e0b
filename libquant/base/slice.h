/* slice.h - a borrowed view of bytes and little-endian loads that do not care about alignment.
 *
 * Only little-endian hosts are supported (all that Linux on x86-64 and aarch64 runs on); the assertion below
 * makes a port notice. */
#ifndef KERF_SLICE_H
#define KERF_SLICE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "kerf reads and writes little-endian data in place");

struct slice {
    const uint8_t *data; /* borrowed */
    size_t len;
};

static inline uint16_t load_u16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t load_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t load_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline float load_f32(const void *p)
{
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline double load_f64(const void *p)
{
    double v;
    memcpy(&v, p, sizeof v);
    return v;
}

#endif
