// Between huffman.c and the decoding loop; private to formats/jpeg/huffman*.c.
//
// A symbol, as looks of DC tables have it. Its code and the first bit of its amplitude, which is
// the sign, lie within the look.
//
//     bits 0-5    bits of code and amplitude; 0: not within the look, or no code at all
//     bit  7      stop: end of block, or not within the look
//     bits 8-11   zeros before the coefficient
//     bits 12-15  bits of the amplitude
//     bits 16-31  signed: what to add to the amplitude's bits to get the coefficient
//
// A pair, as looks of AC tables have it: a symbol that lies within the look with all its amplitude,
// and one as above; or the latter alone, described as if a zero were stored first at its place.
//
//     bits 0-5    bits of both; 0: not within the look, or no code at all
//     bit  7      stop: ends with the end of block, or is not within the look
//     bits 8-15   from the place before to the first coefficient; PAIR_NONE: end of block alone
//     bits 16-31  signed: what to add to the bits of the last symbol's amplitude
//     bits 32-47  signed: the first coefficient
//     bits 48-55  bits of the last symbol's amplitude
//     bits 56-63  from the place before to the last coefficient
#ifndef FORMATS_JPEG_HUFFMAN_KERNEL_H
#define FORMATS_JPEG_HUFFMAN_KERNEL_H

#include "formats/isa.h"
#include "formats/jpeg/huffman.h"

#define LOOK_STOP 0x80u
#define LOOK_MOST 18u  // bits of an entry's symbols, so that three entries fit into 56
#define PAIR_NONE 128u // a place that far away is the last one in jpeg_huffman_ac.natural

struct jpeg_huffman_kernel {
    // Fills an AC table's looks, given those of single symbols.
    void (*pair)(struct jpeg_huffman_ac *table, const uint32_t singles[1 << JPEG_AC_LOOK]);
    // Decode up to `mcus` MCUs, fewer if the window runs out; return how many. `skip` stores
    // nothing.
    uint32_t (*decode)(struct jpeg_huffman *decoder, uint32_t mcus);
    uint32_t (*skip)(struct jpeg_huffman *decoder, uint32_t mcus);
};

ISA_DECLARE(struct jpeg_huffman_kernel, jpeg_huffman_kernel);

#endif
