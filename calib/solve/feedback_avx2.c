/* feedback_avx2.c - the solver of feedback_lanes.h for one instruction set. */
#define ROWS_FN feedback_rows_avx2
#include "feedback_lanes.h"
