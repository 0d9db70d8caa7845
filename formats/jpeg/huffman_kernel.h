// Between huffman.c and the decoding loop; private to formats/jpeg/huffman*.c.
//
// An entry of jpeg_huffman_table.look describes the symbol that the next bits start with. It needs
// its code and the first bit of its amplitude, which is the sign, to lie within the look.
//
//     bits 0-5    bits of code and amplitude; 0: not within the look, or no code at all
//     bit  7      stop: end of block, or not within the look
//     bits 8-11   zeros before the coefficient
//     bits 12-15  bits of the amplitude
//     bits 16-31  signed: what to add to the amplitude's bits to get the coefficient
#ifndef FORMATS_JPEG_HUFFMAN_KERNEL_H
#define FORMATS_JPEG_HUFFMAN_KERNEL_H

#include "formats/isa.h"
#include "formats/jpeg/huffman.h"

#define LOOK_STOP 0x80u
#define LOOK_MOST 18u // bits of an entry's symbol, so that three fit into 56

// Decode up to `mcus` MCUs, fewer if the window runs out; return how many. `skip` stores nothing.
struct jpeg_huffman_kernel {
    uint32_t (*decode)(struct jpeg_huffman *decoder, uint32_t mcus);
    uint32_t (*skip)(struct jpeg_huffman *decoder, uint32_t mcus);
};

ISA_DECLARE(struct jpeg_huffman_kernel, jpeg_huffman_kernel);

#endif
