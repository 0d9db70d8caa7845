// One shard of a MosaicML streaming dataset, read from its first byte to its last: plain or zstd,
// sizes and the checksums we know compared at the end.
//
// Layout (mosaicml/streaming: streaming/base/format/mds/writer.py), little-endian: u32 samples;
// u32 offsets of the samples, one more than there are; JSON of the writer's settings; the samples.
#ifndef FORMATS_MDS_SHARD_H
#define FORMATS_MDS_SHARD_H

#include "formats/source_range.h"

#include <jansson.h>

struct mds_shard;
// `entry` is the shard's object of index.json; its strings must outlive the shard.
// With `names_only`, samples of a plain shard are read no further than they are looked into, and
// nothing is compared with checksums.
enum status mds_shard_open(struct mds_shard **out, const char *directory, json_t *entry,
                           bool names_only, struct error *error);
void mds_shard_close(struct mds_shard **shard); // accepts a pointer to NULL
// The next sample, valid until the next call. STATUS_END after the last, when the whole
// file was as the index says.
enum status mds_shard_next(struct mds_shard *shard, struct source_range *sample,
                           struct error *error);
// Whether that failed for its one sample: an offset that cannot be one, or too many bytes. Then
// the samples behind it can still be read.
bool mds_shard_goes_on(const struct mds_shard *shard); // accepts NULL

#endif
