/* feedback_base.c - the solver of feedback_lanes.h for one instruction set. */
#define ROWS_FN feedback_rows_base
#include "feedback_lanes.h"
