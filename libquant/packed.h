/* packed.h - one attribute: block structs lie at any byte of a file, so they must not promise alignment. */
#ifndef KERF_PACKED_H
#define KERF_PACKED_H

#define KERF_PACKED __attribute__((packed))

#endif
