// The commands of ftrain. Each is given the words after its name, throws the errors of
// ftrain/base/error.h, and returns what the process returns to its shell.
#pragma once

#include <string>
#include <vector>

namespace ftrain::launch {

using Words = std::vector<std::string>;

int run_command(const Words& words);
int verify_command(const Words& words);
int embed_command(const Words& words);
int plan_command(const Words& words);
int parity_command(const Words& words);
int plugins_command(const Words& words);
int data_command(const Words& words);
int config_command(const Words& words);

}  // namespace ftrain::launch
