// The fast JPEG road: own entropy decoder and own pixel stage for plain files (formats/jpeg/
// header.h), without libjpeg. It decides nothing about a file: what it does not take, damage
// included, is libjpeg's to decode or to refuse. The recoded form of such files goes the same way.
#ifndef FORMATS_JPEG_ROAD_H
#define FORMATS_JPEG_ROAD_H

#include "formats/image.h"

// One struct, one thread; buffers only grow.
struct jpeg_road;
enum status jpeg_road_open(struct jpeg_road **out, struct error *error);
void jpeg_road_close(struct jpeg_road **road); // accepts a pointer to NULL
enum status jpeg_road_reserve(struct jpeg_road *road, uint32_t width, struct error *error);
size_t jpeg_road_memory(const struct jpeg_road *road); // bytes

// As image_decode_windows. False means: ask libjpeg; `out` may have changed. True only where
// libjpeg, asked for each window alone, would give these pixels and no warning.
bool jpeg_road_decode(struct jpeg_road *road, const uint8_t *bytes, size_t len,
                      const struct image_window *windows, uint32_t count, struct image_planes *out);

// The same for a recoded JPEG (formats/jpeg/recode.h), of which there is no other judge.
enum status jpeg_road_decode_recoded(struct jpeg_road *road, const uint8_t *bytes, size_t len,
                                     const struct image_window *windows, uint32_t count,
                                     struct image_planes *out, struct error *error);

#endif
