/* report_profile.h - where the loss of a candidate comes from (calib/eval/profile.h) as tables for a
 * terminal, as JSON, and as a map of layers and kinds for the page. Inside of report.h. */
#ifndef KERF_REPORT_PROFILE_H
#define KERF_REPORT_PROFILE_H

#include "report.h"

struct json_writer;

/* Of every candidate that has a profile. The page: 0 or ERR_NOMEM. */
void report_profiles_text(const struct report *r, FILE *out);
int report_profiles_html(const struct report *r, FILE *out);
void report_profiles_csv(const struct report *r, FILE *out);

/* What the profiles would be, of a plan. */
void report_profiles_plan(const struct report *r, FILE *out);

/* Member "profile" of a candidate; null when it has none. */
void report_profile_json(const struct report_model *c, struct json_writer *w);

#endif
