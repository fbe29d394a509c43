#include "ftrain/base/error.h"

namespace ftrain {

// Out of line so that each type's identity lives once, in the core library.
Error::~Error() = default;
ConfigError::~ConfigError() = default;
DataError::~DataError() = default;
PluginError::~PluginError() = default;
ShapeError::~ShapeError() = default;
DeviceError::~DeviceError() = default;
OutOfMemoryError::~OutOfMemoryError() = default;
CommunicationError::~CommunicationError() = default;
PeerError::~PeerError() = default;

}  // namespace ftrain
