/* printable.h - texts from files that nobody vouches for, on their way to a terminal. */
#ifndef KERF_PRINTABLE_H
#define KERF_PRINTABLE_H

/* Overwrite every control character of the string with '?': those of ASCII, and those that Unicode took over
 * from ISO 6429 (U+0080 to U+009F, of two bytes), which steer terminals as well. All else stays as it is. */
void printable(char *s);

#endif
