/* feedback_base.c - the solver of lanes_feedback.h for one instruction set. */
#define ROWS_FN feedback_rows_base
#include "lanes_feedback.h"
