// The ops that authors call, by family (include/ftrain/ops/).
//
// Every function checks its operands (ShapeError) and emits one node or a few.
#pragma once

#include "ftrain/ops/class_center.h"
#include "ftrain/ops/collective.h"
#include "ftrain/ops/convolution.h"
#include "ftrain/ops/elementwise.h"
#include "ftrain/ops/image.h"
#include "ftrain/ops/linear.h"
#include "ftrain/ops/normalization.h"
#include "ftrain/ops/reduction.h"
#include "ftrain/ops/scalars.h"
#include "ftrain/ops/shape.h"
#include "ftrain/ops/update.h"
