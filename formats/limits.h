// Every limit on what we accept from files, in one place, each with its reason. Above a limit a
// function returns STATUS_LIMIT.
#ifndef FORMATS_LIMITS_H
#define FORMATS_LIMITS_H

#include <stdint.h>

#define LIMIT_IMAGE_SIDE          65500u               // libjpeg-turbo's own
#define LIMIT_IMAGE_PIXELS        (UINT64_C(64) << 20) // 192 MiB of RGB; Pillow warns near 89.5 Mpixel
#define LIMIT_IMAGE_BYTES         (UINT64_C(32) << 20) // one stored record
#define LIMIT_JPEG_SCANS          100                  // more is a denial of service, not a picture
#define LIMIT_JPEG_MEMORY         (256L << 20) // progressive coefficients, through libjpeg's own cap
#define LIMIT_ZSTD_WINDOW_LOG     23           // 8 MiB window
#define LIMIT_ZSTD_RATIO          1000u        // of frames above 1 MiB
#define LIMIT_FRAME_OVERHEAD      16384u       // tar headers and padding around an image
#define LIMIT_FRAME_SHARED        (64u << 10)  // content of a frame that several images share
#define LIMIT_SHARD_BYTES         (UINT64_C(64) << 30) //
#define LIMIT_SHARD_RECORDS       (UINT64_C(1) << 24)  //
#define LIMIT_SHARDS              (UINT64_C(1) << 20)  //
#define LIMIT_RECORDS             (UINT64_C(1) << 32) // records of a dataset: the epoch order's domain
#define LIMIT_CLASSES             (UINT64_C(1) << 20)  //
#define LIMIT_INDEX_BYTES         (UINT64_C(64) << 30) // some 700 million records
#define LIMIT_PROVENANCE_BYTES    (UINT64_C(1) << 20)  //
#define LIMIT_NAME_BYTES          4096u                // a member's or record's name
#define LIMIT_SETTINGS_BYTES      (UINT64_C(1) << 20)  // a YAML file
#define LIMIT_TFRECORD_BYTES      (UINT64_C(64) << 20) // an image with what is told of it
#define LIMIT_TENSOR_HEADER_BYTES (UINT64_C(16) << 20) // JSON header of a .safetensors file
#define LIMIT_TENSOR_DIMS         8u                   //

#endif
