/* feedback_avx512.c - the solver of feedback_lanes.h for one instruction set. */
#define ROWS_FN feedback_rows_avx512
#include "feedback_lanes.h"
