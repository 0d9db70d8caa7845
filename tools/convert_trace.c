// What the journal keeps of each image, and the counts that come of it.
#include "tools/convert.h"

#include "formats/limits.h"

#include <string.h>
#include <strings.h>

// The file's length, the stored length, flags, and the outcome of recoding.
enum { LENGTH_BITS = 26, FLAGS_AT = 2 * LENGTH_BITS, OUTCOME_AT = FLAGS_AT + 7 };
#define LENGTH_MASK ((UINT64_C(1) << LENGTH_BITS) - 1)
_Static_assert(LIMIT_IMAGE_BYTES <= LENGTH_MASK, "lengths of images fit");

enum {
    TRACE_JPEG = 1,
    TRACE_PROGRESSIVE = 2,
    TRACE_CMYK = 4,
    TRACE_GREY = 8,
    TRACE_MISNAMED = 16,
    TRACE_RESIZED = 32,
    TRACE_RECODED = 64
};

static bool named_otherwise(const char *name, bool png)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL && (png ? strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0 ||
                                     strcasecmp(dot, ".jpe") == 0 || strcasecmp(dot, ".jfif") == 0
                               : strcasecmp(dot, ".png") == 0);
}

uint64_t convert_trace(const struct convert_job *job)
{
    const struct image_info *info = &job->original;
    bool png = info->kind == IMAGE_PNG;
    uint64_t flags = (png ? 0u : TRACE_JPEG) |
                     (!png && info->progressive ? TRACE_PROGRESSIVE : 0u) |
                     (!png && info->components == 4 ? TRACE_CMYK : 0u) |
                     (!png && info->components == 1 ? TRACE_GREY : 0u) |
                     (named_otherwise(job->name, png) ? TRACE_MISNAMED : 0u) |
                     (job->resized ? TRACE_RESIZED : 0u) |
                     (job->item.info.kind == IMAGE_RECODED ? TRACE_RECODED : 0u);
    return (uint64_t)job->len | (uint64_t)job->item.len << LENGTH_BITS | flags << FLAGS_AT |
           (uint64_t)job->outcome << OUTCOME_AT;
}

void convert_count(struct convert_totals *totals, uint64_t trace)
{
    uint64_t flags = trace >> FLAGS_AT;
    bool jpeg = flags & TRACE_JPEG;
    struct kind_counts *kinds = &totals->kinds;
    totals->images++;
    totals->bytes += trace & LENGTH_MASK;
    kinds->jpeg += jpeg;
    kinds->png += !jpeg;
    kinds->progressive += (flags & TRACE_PROGRESSIVE) != 0;
    kinds->cmyk += (flags & TRACE_CMYK) != 0;
    kinds->grey += (flags & TRACE_GREY) != 0;
    kinds->misnamed += (flags & TRACE_MISNAMED) != 0;
    kinds->resized += (flags & TRACE_RESIZED) != 0;
    if (!jpeg && !(flags & TRACE_RESIZED)) {
        totals->recoded.others++;
        return;
    }
    totals->recoded.outcomes[(trace >> OUTCOME_AT) % RECODE_OUTCOMES]++;
    if (flags & TRACE_RECODED) {
        totals->recoded.before += trace & LENGTH_MASK;
        totals->recoded.after += trace >> LENGTH_BITS & LENGTH_MASK;
    }
}
