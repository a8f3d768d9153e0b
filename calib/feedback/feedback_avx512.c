/* feedback_avx512.c - the solver of lanes_feedback.h for one instruction set. */
#define ROWS_FN feedback_rows_avx512
#include "lanes_feedback.h"
