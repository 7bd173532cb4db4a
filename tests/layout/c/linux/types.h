/* What the mlx5 headers take from the rest of the kernel, enough to compile
 * them in a program: types, byte order, and names that are only mentioned. */
#ifndef CHECK_TYPES_H
#define CHECK_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef u16 __be16;
typedef u32 __be32;
typedef u64 __be64;
typedef u16 __le16;
typedef u32 __le32;
typedef u64 __le64;
typedef u64 dma_addr_t;

#define __packed __attribute__((packed))
#define __force
#define __iomem
#define BITS_PER_LONG __LONG_WIDTH__
#define PAGE_SIZE 4096
#define BIT(n) (1UL << (n))
#define BIT_ULL(n) (1ULL << (n))
#define GENMASK(hi, lo) ((~0UL >> (BITS_PER_LONG - 1 - (hi))) & (~0UL << (lo)))
#define BUILD_BUG_ON(condition) _Static_assert(!(condition), "BUILD_BUG_ON")
#define container_of(member_pointer, type, member) \
	((type *)((char *)(member_pointer) - offsetof(type, member)))

/* An array without a length, alone in a structure so that a union takes it. */
#define DECLARE_FLEX_ARRAY(type, name)  \
	struct {                        \
		struct { } before_##name; \
		type name[];            \
	}
#define struct_group(name, ...)        \
	union {                        \
		struct { __VA_ARGS__ }; \
		struct { __VA_ARGS__ } name; \
	}

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define __LITTLE_ENDIAN 1234
#define __LITTLE_ENDIAN_BITFIELD
#define cpu_to_be16(x) ((__be16)__builtin_bswap16(x))
#define cpu_to_be32(x) ((__be32)__builtin_bswap32(x))
#define cpu_to_be64(x) ((__be64)__builtin_bswap64(x))
#else
#define __BIG_ENDIAN 4321
#define __BIG_ENDIAN_BITFIELD
#define cpu_to_be16(x) ((__be16)(x))
#define cpu_to_be32(x) ((__be32)(x))
#define cpu_to_be64(x) ((__be64)(x))
#endif
#define be16_to_cpu(x) cpu_to_be16(x)
#define be32_to_cpu(x) cpu_to_be32(x)
#define be64_to_cpu(x) cpu_to_be64(x)

#define wmb() ((void)0)
static inline void __raw_writel(u32 value, void *to) { memcpy(to, &value, 4); }
static inline void __raw_writeq(u64 value, void *to) { memcpy(to, &value, 8); }

typedef struct { int count; } refcount_t;
static inline void refcount_inc(refcount_t *r) { r->count++; }
static inline bool refcount_dec_and_test(refcount_t *r) { return --r->count == 0; }
struct list_head { struct list_head *next, *prev; };
struct completion { int done; };
static inline void complete(struct completion *c) { c->done++; }

#define KERN_WARNING ""
#define DUMP_PREFIX_OFFSET 0
#define print_hex_dump(...) ((void)0)
#define pr_debug(...) ((void)0)

#endif
