/* plain_output.h - results for people, which name what stands in files that nobody vouches for. */
#ifndef KERF_PLAIN_OUTPUT_H
#define KERF_PLAIN_OUTPUT_H

/* From here on every control character that the program prints on standard output, but for line ends and
 * tabs, is a '?', as in its messages (printable.h): a name in a file cannot speak to the terminal. Not for
 * JSON, which escapes them. Call before anything is printed. */
void plain_output_begin(void);

/* From here on bytes go out as they are: what follows is data that was asked for. */
void plain_output_as_is(void);

/* The name as one line: line ends and tabs are a '?', too. Cut to the room; returns `out`. */
enum { PLAIN_LINE = 256 };
const char *plain_line(char out[PLAIN_LINE], const char *name);

#endif
