/* feedback_avx2.c - the solver of lanes_feedback.h for one instruction set. */
#define ROWS_FN feedback_rows_avx2
#include "lanes_feedback.h"
