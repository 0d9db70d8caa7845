// The arena never hands out overlapping or misplaced pieces, and always recovers its room.
#include "pipeline/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PAGE = ARENA_ALIGNMENT };

static void test_the_largest_piece_fits_an_empty_arena(void **state)
{
    (void)state;
    struct arena arena;
    enum { LARGEST = 16 * PAGE };
    assert_int_equal(arena_open(&arena, 0, LARGEST, 4, NULL), STATUS_OK);
    for (uint64_t len = 0; len <= LARGEST; len += 512) {
        uint32_t first, second;
        uint8_t *memory = arena_take(&arena, len, 1, &first);
        assert_non_null(memory);
        memset(memory, 1, len);
        if (len > LARGEST / 2 + PAGE) {
            assert_null(arena_take(&arena, len, 1, &second));
        }
        arena_give(&arena, first);
    }
    arena_close(&arena);
}

static void test_room_appears_when_the_oldest_comes_back(void **state)
{
    (void)state;
    struct arena arena;
    assert_int_equal(arena_open(&arena, 3 * PAGE, PAGE, 8, NULL), STATUS_OK);
    uint32_t piece[4], more;
    for (int i = 0; i < 4; i++) {
        assert_non_null(arena_take(&arena, PAGE, 1, &piece[i]));
    }
    assert_null(arena_take(&arena, PAGE, 1, &more));
    arena_give(&arena, piece[1]);
    assert_null(arena_take(&arena, PAGE, 1, &more));
    arena_give(&arena, piece[0]);
    assert_non_null(arena_take(&arena, PAGE, 1, &more));
    assert_non_null(arena_take(&arena, PAGE, 1, &more));
    assert_null(arena_take(&arena, PAGE, 1, &more));
    arena_close(&arena);
}

static void test_no_more_pieces_than_promised(void **state)
{
    (void)state;
    struct arena arena;
    assert_int_equal(arena_open(&arena, 64 * PAGE, PAGE, 2, NULL), STATUS_OK);
    uint32_t first, second, third;
    assert_non_null(arena_take(&arena, 1, 1, &first));
    assert_non_null(arena_take(&arena, 1, 1, &second));
    assert_null(arena_take(&arena, 1, 1, &third));
    arena_give(&arena, first);
    assert_non_null(arena_take(&arena, 1, 1, &third));
    arena_close(&arena);
}

static void test_a_piece_is_free_when_all_its_users_gave_it_back(void **state)
{
    (void)state;
    struct arena arena;
    assert_int_equal(arena_open(&arena, PAGE, PAGE, 8, NULL), STATUS_OK);
    uint32_t piece, more;
    assert_non_null(arena_take(&arena, 2 * PAGE - 1, 3, &piece));
    for (int user = 0; user < 3; user++) {
        assert_null(arena_take(&arena, PAGE, 1, &more));
        arena_give(&arena, piece);
    }
    assert_non_null(arena_take(&arena, PAGE, 1, &more));
    arena_close(&arena);
}

// Each piece is filled with its own number; a foreign byte on return is an overlap.
static void test_random_use_never_overlaps(void **state)
{
    (void)state;
    enum { PIECES = 16, LARGEST = 3000 * 16 };
    struct {
        uint8_t *memory;
        uint32_t piece;
        uint64_t len;
    } held[PIECES];
    struct arena arena;
    assert_int_equal(arena_open(&arena, 3 * LARGEST, LARGEST, PIECES, NULL), STATUS_OK);
    size_t count = 0, taken = 0;
    uint64_t random = 1;
    for (int step = 0; step < 50000; step++) {
        random = random * UINT64_C(6364136223846793005) + 1;
        uint64_t len = (random >> 40) % (LARGEST + 1);
        uint32_t piece;
        uint8_t *memory =
            count < PIECES && (random >> 33 & 1) ? arena_take(&arena, len, 1, &piece) : NULL;
        if (memory) {
            assert_true((uintptr_t)memory % ARENA_ALIGNMENT == 0);
            assert_true(memory >= arena.memory && memory + len <= arena.memory + arena.size);
            memset(memory, (int)piece + 1, len);
            held[count].memory = memory;
            held[count].piece = piece;
            held[count++].len = len;
            taken++;
        } else if (count > 0) {
            size_t which = (random >> 20) % count;
            for (uint64_t i = 0; i < held[which].len; i++) {
                assert_int_equal(held[which].memory[i], held[which].piece + 1);
            }
            arena_give(&arena, held[which].piece);
            held[which] = held[--count];
        }
    }
    assert_true(taken > 5000);
    arena_close(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_largest_piece_fits_an_empty_arena),
        cmocka_unit_test(test_room_appears_when_the_oldest_comes_back),
        cmocka_unit_test(test_no_more_pieces_than_promised),
        cmocka_unit_test(test_a_piece_is_free_when_all_its_users_gave_it_back),
        cmocka_unit_test(test_random_use_never_overlaps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
