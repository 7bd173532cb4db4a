/* Sizes of the two verbs structures that mlx5 structures hold. */
#ifndef CHECK_IB_VERBS_H
#define CHECK_IB_VERBS_H

#include <linux/types.h>

struct ib_grh { u8 bytes[40]; };
struct ib_ah { void *device; };

#endif
